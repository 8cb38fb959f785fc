package ttlafterfinished

import (
	"context"
	"time"

	batch "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

type controller struct {
	client kubernetes.Interface
	clock  clock.Clock
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	jobs := c.Informers.Batch().V1().Jobs().Informer()
	r := &controller{client: c.Client(), clock: c.Clock}
	queue := c.Queue("ttl_jobs_to_delete")
	reconcile.Handle(jobs, func(j *batch.Job) {
		if _, ok := expiry(j); ok {
			queue.Add(reconcile.Key(j))
		}
	}, nil, reconcile.Ignore)
	return reconcile.Loop[*batch.Job]{Queue: queue, Workers: c.Workers(5), For: jobs, Reconcile: r.reconcile}.Run, nil
}

// expiry returns when a Job is to be deleted; false if it is not to be, yet.
func expiry(j *batch.Job) (time.Time, bool) {
	if j.Spec.TTLSecondsAfterFinished == nil || j.DeletionTimestamp != nil {
		return time.Time{}, false
	}
	if c := controllers.JobEnd(j); c != nil && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second), true
	}
	return time.Time{}, false
}

func (r *controller) reconcile(ctx context.Context, j *batch.Job) (reconcile.Result, error) {
	at, ok := expiry(j)
	if !ok {
		return reconcile.Result{}, nil
	}
	if left := at.Sub(r.clock.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	// The time may have been extended since: then the version is another one.
	err := r.client.BatchV1().Jobs(j.Namespace).Delete(ctx, j.Name, metav1.DeleteOptions{
		PropagationPolicy: ptr.To(metav1.DeletePropagationForeground),
		Preconditions:     &metav1.Preconditions{UID: &j.UID, ResourceVersion: &j.ResourceVersion},
	})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return reconcile.Result{}, err
}
