// Package volumeexpand records an event for claims that ask for more than they
// have. The volume plug-ins that were once in the tree are CSI drivers now, whose
// resizers expand the volumes.
package volumeexpand

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	claims, volumes := c.Informers.Core().V1().PersistentVolumeClaims().Informer(), c.Informers.Core().V1().PersistentVolumes()
	recorder, queue := c.Recorder(), c.Queue("volume_expand")
	reconcile.Handle(claims, nil, func(old, cur *v1.PersistentVolumeClaim) {
		was, is := old.Spec.Resources.Requests[v1.ResourceStorage], cur.Spec.Resources.Requests[v1.ResourceStorage]
		if is.Cmp(was) > 0 {
			queue.Add(reconcile.Key(cur))
		}
	}, reconcile.Ignore)
	sync := func(_ context.Context, claim *v1.PersistentVolumeClaim) (reconcile.Result, error) {
		want, have := claim.Spec.Resources.Requests[v1.ResourceStorage], claim.Status.Capacity[v1.ResourceStorage]
		if claim.Status.Phase != v1.ClaimBound || want.Cmp(have) <= 0 {
			return reconcile.Result{}, nil
		}
		v, err := volumes.Lister().Get(claim.Spec.VolumeName)
		if err != nil {
			return reconcile.Result{}, err
		}
		if v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != claim.UID {
			return reconcile.Result{}, fmt.Errorf("persistent Volume is not bound to PVC being updated : %s", reconcile.Key(claim))
		}
		kind := v1.EventTypeWarning
		if v.Spec.CSI != nil || v.Spec.FlexVolume != nil {
			kind = v1.EventTypeNormal
		}
		recorder.Event(claim, kind, "ExternalExpanding", "waiting for an external controller to expand this PVC")
		return reconcile.Result{}, nil
	}
	return reconcile.Loop[*v1.PersistentVolumeClaim]{
		Queue: queue, For: claims, Reads: []cache.SharedIndexInformer{volumes.Informer()}, Reconcile: sync,
	}.Run, nil
}
