package selinuxwarning

import (
	"context"
	"errors"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	byClaim  = "selinux-claim"
	byHandle = "selinux-handle"
)

type controller struct {
	recorder record.EventRecorder
	queue    reconcile.Queue
	pods     cache.SharedIndexInformer
	volumes  cache.SharedIndexInformer
	claims   corelisters.PersistentVolumeClaimLister
	drivers  storagelisters.CSIDriverLister

	mu sync.Mutex
	// told are the messages that a pod has had.
	told map[types.UID][]string
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	core, drivers := c.Informers.Core().V1(), c.Informers.Storage().V1().CSIDrivers()
	claims := core.PersistentVolumeClaims()
	s := &controller{recorder: c.Recorder(), queue: c.Queue("selinux_warning"), pods: core.Pods().Informer(), volumes: core.PersistentVolumes().Informer(),
		claims: claims.Lister(), drivers: drivers.Lister(), told: map[types.UID][]string{}}
	if err := errors.Join(
		s.pods.AddIndexers(cache.Indexers{byClaim: func(o any) ([]string, error) { return claimsOf(o), nil }}),
		s.volumes.AddIndexers(cache.Indexers{byHandle: func(o any) ([]string, error) {
			if v, ok := o.(*v1.PersistentVolume); ok && v.Spec.CSI != nil {
				return []string{handle(v.Spec.CSI)}, nil
			}
			return nil, nil
		}}),
	); err != nil {
		return nil, err
	}
	// What matters of a pod does not change but for its end.
	reconcile.Handle(s.pods, reconcile.Enqueue[*v1.Pod](s.queue), func(_, p *v1.Pod) {
		if controllers.PodTerminated(p) {
			s.forget(p)
		}
	}, s.forget)
	reconcile.Handle(claims.Informer(), s.claimChanged, func(old, claim *v1.PersistentVolumeClaim) {
		if old.Spec.VolumeName != claim.Spec.VolumeName {
			s.claimChanged(claim)
		}
	}, reconcile.Ignore)
	reconcile.Handle(s.volumes, s.volumeChanged, func(old, v *v1.PersistentVolume) {
		if v.Spec.ClaimRef != nil && (old.Spec.ClaimRef == nil || old.Spec.ClaimRef.UID != v.Spec.ClaimRef.UID) {
			s.volumeChanged(v)
		}
	}, reconcile.Ignore)
	changed := func(d *storage.CSIDriver) {
		for _, o := range s.volumes.GetIndexer().List() {
			if v := o.(*v1.PersistentVolume); v.Spec.CSI != nil && v.Spec.CSI.Driver == d.Name {
				s.volumeChanged(v)
			}
		}
	}
	reconcile.Handle(drivers.Informer(), changed, func(old, d *storage.CSIDriver) {
		if mounts(old) != mounts(d) {
			changed(d)
		}
	}, changed)
	return reconcile.Loop[*v1.Pod]{
		Queue: s.queue, For: s.pods, Reads: []cache.SharedIndexInformer{claims.Informer(), s.volumes, drivers.Informer()}, Reconcile: s.reconcile,
	}.Run, nil
}

// mounts reports whether a driver mounts volumes with a label.
func mounts(d *storage.CSIDriver) bool { return d.Spec.SELinuxMount != nil && *d.Spec.SELinuxMount }

func handle(v *v1.CSIPersistentVolumeSource) string { return v.Driver + "^" + v.VolumeHandle }

func claimsOf(o any) []string {
	p, ok := o.(*v1.Pod)
	if !ok {
		return nil
	}
	return podspec.ClaimKeys(p)
}

func (s *controller) wake(claim string) {
	keys, _ := s.pods.GetIndexer().IndexKeys(byClaim, claim) // the index is there
	for _, k := range keys {
		s.queue.Add(k)
	}
}

func (s *controller) claimChanged(c *v1.PersistentVolumeClaim) { s.wake(reconcile.Key(c)) }

func (s *controller) volumeChanged(v *v1.PersistentVolume) {
	if r := v.Spec.ClaimRef; r != nil {
		s.wake(r.Namespace + "/" + r.Name)
	}
}

func (s *controller) forget(p *v1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.told, p.UID)
}

// tell records an event of a pod, once.
func (s *controller) tell(p *v1.Pod, kind, reason, message string) {
	s.mu.Lock()
	had := slices.Contains(s.told[p.UID], message)
	if !had {
		s.told[p.UID] = append(s.told[p.UID], message)
	}
	s.mu.Unlock()
	if !had {
		s.recorder.Event(p, kind, reason, message)
	}
}

// source returns the volume of a CSI driver that a claim of a pod is bound to, nil if
// there is none.
func (s *controller) source(namespace, claim string) *v1.CSIPersistentVolumeSource {
	c, err := s.claims.PersistentVolumeClaims(namespace).Get(claim)
	if err != nil || c.Spec.VolumeName == "" {
		return nil
	}
	o, ok, err := s.volumes.GetIndexer().GetByKey(c.Spec.VolumeName)
	if err != nil || !ok {
		return nil
	}
	v := o.(*v1.PersistentVolume)
	if v.Spec.CSI == nil || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != c.UID {
		return nil
	}
	return v.Spec.CSI
}

// uses returns how a pod uses a volume, by a claim. A pod with several labels of it cannot
// run.
func (s *controller) uses(p *v1.Pod, claim string, mountable bool) (out []use) {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if podspec.ClaimName(p, v) != claim {
			continue
		}
		if all := labels(p, v.Name); len(all) == 1 {
			out = append(out, useOf(p, all[0], mountable))
		}
	}
	return out
}

// reconcile compares a pod with the others that use its volumes.
func (s *controller) reconcile(_ context.Context, p *v1.Pod) (reconcile.Result, error) {
	if controllers.PodTerminated(p) {
		return reconcile.Result{}, nil
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		claim := podspec.ClaimName(p, v)
		if claim == "" {
			continue
		}
		source := s.source(p.Namespace, claim)
		if source == nil {
			continue // it comes back with the claim, or the volume
		}
		driver, err := s.drivers.Get(source.Driver)
		mountable := err == nil && mounts(driver)
		all := labels(p, v.Name)
		if len(all) > 1 {
			s.tell(p, v1.EventTypeWarning, "MultipleSELinuxLabels", "Volume \""+v.Name+"\" is mounted twice with different SELinux labels inside this pod")
		}
		if len(all) != 1 {
			continue
		}
		s.compare(p, useOf(p, all[0], mountable), source, mountable)
	}
	return reconcile.Result{}, nil
}

// compare tells a pod, and the others that use a volume, of their conflicts.
func (s *controller) compare(p *v1.Pod, own use, source *v1.CSIPersistentVolumeSource, mountable bool) {
	// Several volumes may be of one handle.
	for _, v := range reconcile.Indexed[*v1.PersistentVolume](s.volumes.GetIndexer(), byHandle, handle(source)) {
		r := v.Spec.ClaimRef
		if r == nil || s.source(r.Namespace, r.Name) == nil {
			continue
		}
		for _, other := range reconcile.Indexed[*v1.Pod](s.pods.GetIndexer(), byClaim, r.Namespace+"/"+r.Name) {
			if other.UID == p.UID || controllers.PodTerminated(other) {
				continue
			}
			for _, theirs := range s.uses(other, r.Name, mountable) {
				for _, c := range conflicts(own, theirs) {
					s.tell(p, v1.EventTypeNormal, c.reason, c.message(p, other))
				}
				for _, c := range conflicts(theirs, own) {
					s.tell(other, v1.EventTypeNormal, c.reason, c.message(other, p))
				}
			}
		}
	}
}
