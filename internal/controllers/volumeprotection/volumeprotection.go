package volumeprotection

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
)

const (
	claimFinalizer  = "kubernetes.io/pvc-protection"
	volumeFinalizer = "kubernetes.io/pv-protection"
	byClaim         = "protected-claim"
)

// claimsOf gives the keys of the claims that a pod uses.
func claimsOf(p *v1.Pod) (out []string) {
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			out = append(out, p.Namespace+"/"+v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, p.Namespace+"/"+p.Name+"-"+v.Name)
		}
	}
	return out
}

type claimProtector struct {
	client kubernetes.Interface
	claims corelisters.PersistentVolumeClaimLister
	pods   cache.SharedIndexInformer
}

// StartClaims runs the protection of claims until ctx is done.
func StartClaims(ctx context.Context, c controllers.Context) error {
	claims, pods := c.Informers.Core().V1().PersistentVolumeClaims(), c.Informers.Core().V1().Pods().Informer()
	if err := pods.AddIndexers(cache.Indexers{byClaim: func(o any) ([]string, error) {
		p, ok := o.(*v1.Pod)
		if !ok {
			return nil, nil
		}
		return claimsOf(p), nil
	}}); err != nil {
		return err
	}
	p := &claimProtector{c.Client("pvc-protection-controller"), claims.Lister(), pods}
	queue := controllers.NewQueue("pvcprotection", c.Clock)
	add := func(o *v1.PersistentVolumeClaim) {
		if o.DeletionTimestamp != nil && slices.Contains(o.Finalizers, claimFinalizer) {
			queue.Add(controllers.Key(o))
		}
	}
	controllers.Handle(claims.Informer(), add, func(_, cur *v1.PersistentVolumeClaim) { add(cur) }, func(*v1.PersistentVolumeClaim) {})
	released := func(o *v1.Pod) {
		for _, key := range claimsOf(o) {
			queue.Add(key)
		}
	}
	controllers.Handle(pods, func(*v1.Pod) {}, func(old, cur *v1.Pod) {
		if controllers.PodTerminated(cur) && !controllers.PodTerminated(old) {
			released(cur)
		}
	}, released)
	loop := &controllers.Loop{Name: "pvc-protection-controller", Queue: queue, Workers: 1, Synced: []cache.SharedIndexInformer{claims.Informer(), pods}, Sync: p.sync}
	go loop.Run(ctx)
	return nil
}

func (p *claimProtector) sync(ctx context.Context, key string) error {
	namespace, name := controllers.SplitKey(key)
	claim, err := p.claims.PersistentVolumeClaims(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || claim.DeletionTimestamp == nil || !slices.Contains(claim.Finalizers, claimFinalizer) {
		return err
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
		if slices.Contains(claimsOf(&live.Items[i]), key) && uses(&live.Items[i]) {
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

// uses says whether a pod that names a claim can use it: not before it is on a
// node, and not after its end.
func uses(p *v1.Pod) bool { return p.Spec.NodeName != "" && !controllers.PodTerminated(p) }

func without(all []string, f string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == f })
}

type volumeProtector struct {
	client  kubernetes.Interface
	volumes corelisters.PersistentVolumeLister
}

// StartVolumes runs the protection of volumes until ctx is done.
func StartVolumes(ctx context.Context, c controllers.Context) error {
	volumes := c.Informers.Core().V1().PersistentVolumes()
	p := &volumeProtector{c.Client("pv-protection-controller"), volumes.Lister()}
	queue := controllers.NewQueue("pvprotection", c.Clock)
	add := func(o *v1.PersistentVolume) {
		if o.DeletionTimestamp != nil && slices.Contains(o.Finalizers, volumeFinalizer) {
			queue.Add(o.Name)
		}
	}
	controllers.Handle(volumes.Informer(), add, func(_, cur *v1.PersistentVolume) { add(cur) }, func(*v1.PersistentVolume) {})
	loop := &controllers.Loop{Name: "pv-protection-controller", Queue: queue, Workers: 1, Synced: []cache.SharedIndexInformer{volumes.Informer()}, Sync: p.sync}
	go loop.Run(ctx)
	return nil
}

func (p *volumeProtector) sync(ctx context.Context, name string) error {
	volume, err := p.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || volume.DeletionTimestamp == nil || !slices.Contains(volume.Finalizers, volumeFinalizer) || volume.Status.Phase == v1.VolumeBound {
		return err
	}
	next := volume.DeepCopy()
	next.Finalizers = without(next.Finalizers, volumeFinalizer)
	_, err = p.client.CoreV1().PersistentVolumes().Update(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
