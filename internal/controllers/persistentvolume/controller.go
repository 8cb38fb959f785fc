package persistentvolume

import (
	"context"
	"strings"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/client-go/kubernetes"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/storage/volume"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

// The indexes of the informers.
const (
	// claimsByClass indexes the claims that name no volume by their class.
	claimsByClass = "binder-unbound-class"
	// claimsByVolume indexes claims by the volume that they name.
	claimsByVolume = "binder-volume"
	// volumesByClass indexes the unbound volumes by their class.
	volumesByClass = "binder-available-class"
	// volumesByClaim indexes volumes by the claim that they name.
	volumesByClaim = "binder-claim"
	// podsByClaim indexes unscheduled pods by the claims that they use.
	podsByClaim = "binder-unscheduled-claim"
)

// controller is the binder. It has one worker, so that no two claims take the
// same volume at once.
type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	queue    reconcile.Queue

	claims, volumes, pods cache.SharedIndexInformer
	classes               storagelisters.StorageClassLister

	// writtenClaims and writtenVolumes are the informers' objects, or what this
	// controller has written of them where an informer does not have that yet.
	writtenClaims, writtenVolumes cache.MutationCache
}

// The keys of claims and volumes in the one queue.
const (
	claimPrefix  = "claim:"
	volumePrefix = "volume:"
)

// New makes the binder.
func New(c controllers.Context) (reconcile.Run, error) {
	core := c.Informers.Core().V1()
	classes := c.Informers.Storage().V1().StorageClasses()
	p := &controller{
		client: c.Client(), recorder: c.Recorder(), queue: c.Queue("volumes"),
		claims: core.PersistentVolumeClaims().Informer(), volumes: core.PersistentVolumes().Informer(), pods: core.Pods().Informer(),
		classes: classes.Lister(),
	}
	p.writtenClaims, p.writtenVolumes = written(p.claims.GetIndexer()), written(p.volumes.GetIndexer())
	for inf, indexers := range map[cache.SharedIndexInformer]cache.Indexers{
		p.claims:  {claimsByClass: unboundClass, claimsByVolume: volumeOfClaim},
		p.volumes: {volumesByClass: availableClass, volumesByClaim: claimOfVolume},
		p.pods:    {podsByClaim: unscheduledClaims},
	} {
		if err := inf.AddIndexers(indexers); err != nil {
			return nil, err
		}
	}
	reconcile.Handle(p.claims, p.claimChanged, nil, nil)
	reconcile.Handle(p.volumes, p.volumeChanged, nil, nil)
	reconcile.Handle(classes.Informer(), p.classChanged, nil, reconcile.Ignore)
	reconcile.Handle(p.pods, nil, func(_, cur *v1.Pod) {
		if name, ok := strings.CutPrefix(cur.Name, recyclerPrefix); ok && controllers.PodTerminated(cur) {
			p.queue.Add(volumePrefix + name)
		}
	}, reconcile.Ignore)
	return reconcile.Keys{
		Queue: p.queue, Reads: []cache.SharedIndexInformer{p.claims, p.volumes, p.pods, classes.Informer()}, Reconcile: p.reconcile,
	}.Run, nil
}

// writtenMax bounds the writes that are remembered until an informer has them: one
// that is forgotten costs a conflict.
const writtenMax = 10_000

func written(informer cache.Indexer) cache.MutationCache {
	return cache.NewIntegerResourceVersionMutationCacheWithOptions(klog.Background(), informer, cache.MutationCacheOptions{Indexer: informer, MaxCacheSize: writtenMax})
}

func unboundClass(o any) ([]string, error) {
	if c, ok := o.(*v1.PersistentVolumeClaim); ok && c.Spec.VolumeName == "" {
		return []string{volume.GetPersistentVolumeClaimClass(c)}, nil
	}
	return nil, nil
}

func volumeOfClaim(o any) ([]string, error) {
	if c, ok := o.(*v1.PersistentVolumeClaim); ok && c.Spec.VolumeName != "" {
		return []string{c.Spec.VolumeName}, nil
	}
	return nil, nil
}

func availableClass(o any) ([]string, error) {
	if v, ok := o.(*v1.PersistentVolume); ok && v.Spec.ClaimRef == nil {
		return []string{volume.GetPersistentVolumeClass(v)}, nil
	}
	return nil, nil
}

func claimOfVolume(o any) ([]string, error) {
	if v, ok := o.(*v1.PersistentVolume); ok && v.Spec.ClaimRef != nil {
		return []string{v.Spec.ClaimRef.Namespace + "/" + v.Spec.ClaimRef.Name}, nil
	}
	return nil, nil
}

func unscheduledClaims(o any) (out []string, err error) {
	p, ok := o.(*v1.Pod)
	if !ok || p.Spec.NodeName != "" || controllers.PodTerminated(p) {
		return nil, nil
	}
	return podspec.ClaimKeys(p), nil
}

// claimChanged queues a claim and the volumes that are, or were, its own.
func (p *controller) claimChanged(c *v1.PersistentVolumeClaim) {
	key := reconcile.Key(c)
	p.queue.Add(claimPrefix + key)
	if c.Spec.VolumeName != "" {
		p.queue.Add(volumePrefix + c.Spec.VolumeName)
	}
	for _, v := range reconcile.Indexed[*v1.PersistentVolume](p.volumes.GetIndexer(), volumesByClaim, key) {
		p.queue.Add(volumePrefix + v.Name)
	}
}

// volumeChanged queues a volume and the claims that may be bound to it.
func (p *controller) volumeChanged(v *v1.PersistentVolume) {
	p.queue.Add(volumePrefix + v.Name)
	for _, c := range reconcile.Indexed[*v1.PersistentVolumeClaim](p.claims.GetIndexer(), claimsByVolume, v.Name) {
		p.queue.Add(claimPrefix + reconcile.Key(c))
	}
	if v.Spec.ClaimRef != nil {
		p.queue.Add(claimPrefix + v.Spec.ClaimRef.Namespace + "/" + v.Spec.ClaimRef.Name)
		return
	}
	for _, c := range reconcile.Indexed[*v1.PersistentVolumeClaim](p.claims.GetIndexer(), claimsByClass, volume.GetPersistentVolumeClass(v)) {
		p.queue.Add(claimPrefix + reconcile.Key(c))
	}
}

// classChanged queues the claims that wait for a class: this one, or a default.
func (p *controller) classChanged(s *storage.StorageClass) {
	for _, class := range []string{s.Name, ""} {
		for _, c := range reconcile.Indexed[*v1.PersistentVolumeClaim](p.claims.GetIndexer(), claimsByClass, class) {
			p.queue.Add(claimPrefix + reconcile.Key(c))
		}
	}
}

func (p *controller) reconcile(ctx context.Context, key string) (reconcile.Result, error) {
	if key, ok := strings.CutPrefix(key, claimPrefix); ok {
		c, ok := p.claim(key)
		if !ok {
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, p.syncClaim(trace.WithCause(ctx, c), c)
	}
	name := strings.TrimPrefix(key, volumePrefix)
	v, ok := p.volume(name)
	if !ok {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, p.syncVolume(trace.WithCause(ctx, v), v)
}

// claim returns the newest known version of a claim.
func (p *controller) claim(key string) (*v1.PersistentVolumeClaim, bool) {
	o, ok, err := p.writtenClaims.GetByKey(key)
	if err != nil || !ok {
		return nil, false
	}
	return o.(*v1.PersistentVolumeClaim), true
}

// volume returns the newest known version of a volume.
func (p *controller) volume(name string) (*v1.PersistentVolume, bool) {
	o, ok, err := p.writtenVolumes.GetByKey(name)
	if err != nil || !ok {
		return nil, false
	}
	return o.(*v1.PersistentVolume), true
}
