package controllers

import (
	"context"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
)

// PodControl makes and deletes the pods of workloads, and tells so in the
// workloads' events.
type PodControl struct {
	Client   kubernetes.Interface
	Recorder record.EventRecorder
}

// Create makes a pod of owner. A pod that a terminating namespace does not take is
// an error with the cause NamespaceTerminating, and no event: owner goes, too.
func (c PodControl) Create(ctx context.Context, owner runtime.Object, pod *v1.Pod) error {
	made, err := c.Client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		if !apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
			c.Recorder.Eventf(owner, v1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		}
		return err
	}
	c.Recorder.Eventf(owner, v1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", made.Name)
	return nil
}

// Delete deletes a pod of owner, and no other of its name. That it has gone is an
// error, and no event.
func (c PodControl) Delete(ctx context.Context, owner runtime.Object, pod *v1.Pod) error {
	err := c.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsConflict(err) {
		err = apierrors.NewNotFound(v1.Resource("pods"), pod.Name)
	}
	if err != nil {
		if !apierrors.IsNotFound(err) {
			c.Recorder.Eventf(owner, v1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		}
		return err
	}
	c.Recorder.Eventf(owner, v1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
	return nil
}

// SlowStart calls f with 0 to n-1, in parallel batches of 1, 2, 4 and so on, and
// stops after the first batch with an error, so that a workload that cannot make its
// pods does not fill the API server with attempts. It returns the number of calls
// that succeeded, and an error of one that did not.
func SlowStart(n int, f func(i int) error) (int, error) {
	done, next := 0, 0
	for size := 1; next < n; size *= 2 {
		first, batch := next, min(size, n-next)
		next += batch
		var mu sync.Mutex
		err := Parallel(batch, func(i int) error {
			err := f(first + i)
			if err == nil {
				mu.Lock()
				done++
				mu.Unlock()
			}
			return err
		})
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Parallel calls f with 0 to n-1 at once, and returns the error of the first of these
// that failed.
func Parallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
