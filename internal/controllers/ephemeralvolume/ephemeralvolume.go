// Package ephemeralvolume makes the PersistentVolumeClaims of pods' ephemeral
// volumes
// (https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes).
// The pod owns them, so that they go with it.
package ephemeralvolume

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/storage/ephemeral"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// byClaim is the index of pods by the claims of their ephemeral volumes.
const byClaim = "ephemeral-claim"

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	claims   corelisters.PersistentVolumeClaimLister
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	pods, claims := c.Informers.Core().V1().Pods().Informer(), c.Informers.Core().V1().PersistentVolumeClaims()
	e := &controller{client: c.Client(), recorder: c.Recorder(), claims: claims.Lister()}
	queue := c.Queue("ephemeral_volume")
	reconcile.Handle(pods, func(p *v1.Pod) {
		if wants(p) {
			queue.Add(reconcile.Key(p))
		}
	}, nil, reconcile.Ignore)
	if err := pods.AddIndexers(cache.Indexers{byClaim: func(o any) ([]string, error) { return claimsOf(o), nil }}); err != nil {
		return nil, err
	}
	// A claim that goes while its pod is there is made again; one that was in the
	// way is no longer.
	reconcile.Handle(claims.Informer(), nil, func(_, _ *v1.PersistentVolumeClaim) {}, func(claim *v1.PersistentVolumeClaim) {
		keys, _ := pods.GetIndexer().IndexKeys(byClaim, reconcile.Key(claim)) // the index is there
		for _, k := range keys {
			queue.Add(k)
		}
	})
	return reconcile.Loop[*v1.Pod]{
		Queue: queue, Workers: c.Workers(4), For: pods, Reads: []cache.SharedIndexInformer{claims.Informer()}, Reconcile: e.reconcile,
	}.Run, nil
}

// claimsOf returns the keys of the claims of a pod's ephemeral volumes.
func claimsOf(o any) (out []string) {
	p, ok := o.(*v1.Pod)
	if !ok {
		return nil
	}
	for i := range p.Spec.Volumes {
		if v := &p.Spec.Volumes[i]; v.Ephemeral != nil {
			out = append(out, p.Namespace+"/"+ephemeral.VolumeClaimName(p, v))
		}
	}
	return out
}

// wants reports whether a pod may need claims.
func wants(p *v1.Pod) bool {
	if p.DeletionTimestamp != nil || controllers.PodTerminated(p) {
		return false
	}
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Ephemeral != nil {
			return true
		}
	}
	return false
}

func (e *controller) reconcile(ctx context.Context, p *v1.Pod) (reconcile.Result, error) {
	if !wants(p) {
		return reconcile.Result{}, nil
	}
	var errs []error
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate == nil {
			continue
		}
		if err := e.make(ctx, p, v); err != nil {
			e.recorder.Event(p, v1.EventTypeWarning, "FailedBinding", fmt.Sprintf("ephemeral volume %s: %v", v.Name, err))
			errs = append(errs, fmt.Errorf("pod %s, ephemeral volume %s: %w", reconcile.Key(p), v.Name, err))
		}
	}
	return reconcile.Result{}, errors.Join(errs...)
}

// make makes the claim of a volume. A claim of that name that is not the pod's is
// never used: it may hold what is not the pod's to see.
func (e *controller) make(ctx context.Context, p *v1.Pod, v *v1.Volume) error {
	name := ephemeral.VolumeClaimName(p, v)
	claim, err := e.claims.PersistentVolumeClaims(p.Namespace).Get(name)
	if err == nil {
		return ephemeral.VolumeIsForPod(p, claim)
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	template := v.Ephemeral.VolumeClaimTemplate
	_, err = e.client.CoreV1().PersistentVolumeClaims(p.Namespace).Create(ctx, &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: template.Labels, Annotations: template.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p, v1.SchemeGroupVersion.WithKind("Pod"))},
		},
		Spec: template.Spec,
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		// The cache is behind: the claim's owner is checked below.
		if claim, err = e.client.CoreV1().PersistentVolumeClaims(p.Namespace).Get(ctx, name, metav1.GetOptions{}); err == nil {
			return ephemeral.VolumeIsForPod(p, claim)
		}
	}
	if err != nil {
		return fmt.Errorf("create PVC %s: %w", name, err)
	}
	return nil
}
