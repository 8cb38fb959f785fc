package volumeprotection

import (
	"context"
	"encoding/json"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	claimFinalizer  = "kubernetes.io/pvc-protection"
	volumeFinalizer = "kubernetes.io/pv-protection"
	byClaim         = "protected-claim"
)

type claimProtector struct {
	client kubernetes.Interface
	pods   cache.SharedIndexInformer
	clock  clock.PassiveClock
}

// NewClaims makes the protection of claims.
func NewClaims(c controllers.Context) (reconcile.Run, error) {
	claims, pods := c.Informers.Core().V1().PersistentVolumeClaims(), c.Informers.Core().V1().Pods().Informer()
	if err := pods.AddIndexers(cache.Indexers{byClaim: func(o any) ([]string, error) {
		p, ok := o.(*v1.Pod)
		if !ok {
			return nil, nil
		}
		return podspec.ClaimKeys(p), nil
	}}); err != nil {
		return nil, err
	}
	p := &claimProtector{c.Client(), pods, c.Clock}
	queue := c.Queue("pvcprotection")
	reconcile.Handle(claims.Informer(), reconcile.Enqueue[*v1.PersistentVolumeClaim](queue), nil, reconcile.Ignore)
	changed := func(o *v1.Pod) {
		for _, key := range podspec.ClaimKeys(o) {
			queue.Add(key)
		}
	}
	reconcile.Handle(pods, changed, func(old, cur *v1.Pod) {
		if controllers.PodTerminated(cur) && !controllers.PodTerminated(old) {
			changed(cur)
		}
	}, changed)
	return reconcile.Loop[*v1.PersistentVolumeClaim]{
		Queue: queue, For: claims.Informer(), Reads: []cache.SharedIndexInformer{pods},
		Reconcile: func(ctx context.Context, claim *v1.PersistentVolumeClaim) (reconcile.Result, error) {
			if claim.DeletionTimestamp == nil {
				return reconcile.Result{}, p.tellUse(ctx, claim)
			}
			return reconcile.Result{}, p.release(ctx, claim)
		},
	}.Run, nil
}

// release lets a claim go that is being deleted and that no pod uses.
func (p *claimProtector) release(ctx context.Context, claim *v1.PersistentVolumeClaim) error {
	namespace, key := claim.Namespace, reconcile.Key(claim)
	if claim.DeletionTimestamp == nil || !slices.Contains(claim.Finalizers, claimFinalizer) {
		return nil
	}
	users, err := p.pods.GetIndexer().ByIndex(byClaim, key)
	if err != nil {
		return err
	}
	for _, o := range users {
		if uses(o.(*v1.Pod)) {
			return nil
		}
	}
	// The informer may be behind: a pod that has just been made uses it, too.
	live, err := p.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range live.Items {
		if slices.Contains(podspec.ClaimKeys(&live.Items[i]), key) && uses(&live.Items[i]) {
			return nil
		}
	}
	next := claim.DeepCopy()
	next.Finalizers = without(next.Finalizers, claimFinalizer)
	_, err = p.client.CoreV1().PersistentVolumeClaims(namespace).Update(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// tellUse writes the condition Unused: whether no pod that has not ended names the
// claim, and since when (KEP-5541).
func (p *claimProtector) tellUse(ctx context.Context, claim *v1.PersistentVolumeClaim) error {
	users, err := p.pods.GetIndexer().ByIndex(byClaim, reconcile.Key(claim))
	if err != nil {
		return err
	}
	next := v1.PersistentVolumeClaimCondition{
		Type: v1.PersistentVolumeClaimUnused, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(p.clock.Now()),
		Reason: "NoPodsUsingPVC", Message: "No pods are currently referencing this PVC",
	}
	if slices.ContainsFunc(users, func(o any) bool { return !controllers.PodTerminated(o.(*v1.Pod)) }) {
		next.Status, next.Reason, next.Message = v1.ConditionFalse, "PodUsingPVC", "One or more pods are referencing this PVC"
	}
	for i := range claim.Status.Conditions {
		if old := &claim.Status.Conditions[i]; old.Type == next.Type && old.Status == next.Status {
			return nil
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": claim.UID},
		"status":   map[string]any{"conditions": []v1.PersistentVolumeClaimCondition{next}},
	})
	if err != nil {
		return err
	}
	_, err = p.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// uses reports whether a pod that names a claim can use it: not before it is on a
// node, and not after its end.
func uses(p *v1.Pod) bool { return p.Spec.NodeName != "" && !controllers.PodTerminated(p) }

func without(all []string, f string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == f })
}

type volumeProtector struct {
	client kubernetes.Interface
}

// NewVolumes makes the protection of volumes.
func NewVolumes(c controllers.Context) (reconcile.Run, error) {
	volumes := c.Informers.Core().V1().PersistentVolumes()
	p := &volumeProtector{c.Client()}
	queue := c.Queue("pvprotection")
	add := func(o *v1.PersistentVolume) {
		if o.DeletionTimestamp != nil && slices.Contains(o.Finalizers, volumeFinalizer) {
			queue.Add(o.Name)
		}
	}
	reconcile.Handle(volumes.Informer(), add, nil, reconcile.Ignore)
	return reconcile.Loop[*v1.PersistentVolume]{Queue: queue, For: volumes.Informer(), Reconcile: p.reconcile}.Run, nil
}

func (p *volumeProtector) reconcile(ctx context.Context, volume *v1.PersistentVolume) (reconcile.Result, error) {
	if volume.DeletionTimestamp == nil || !slices.Contains(volume.Finalizers, volumeFinalizer) || volume.Status.Phase == v1.VolumeBound {
		return reconcile.Result{}, nil
	}
	next := volume.DeepCopy()
	next.Finalizers = without(next.Finalizers, volumeFinalizer)
	_, err := p.client.CoreV1().PersistentVolumes().Update(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return reconcile.Result{}, err
}
