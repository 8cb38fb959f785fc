package shares

import (
	"context"
	"reflect"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/podspec"
)

// Shares gives the pods of a node, and their classes of service, their shares of
// the machine.
type Shares struct {
	Cgroups *cgroup.Manager
	// Root is the cgroup that those of the pods are in; "" is the machine's.
	Root string
	// Memory configures the memory that is protected or throttled, on cgroup v2.
	Memory cgroup.Memory
	// PidsLimit is how many processes a pod may have.
	PidsLimit int64
	// All is the limit of all pods together.
	All v1.ResourceList
	// Pods are the node's pods.
	Pods func() []*v1.Pod

	mu sync.Mutex // over writes to the classes' cgroups
	// given is what the classes' cgroups have got, by their paths.
	given map[string]cgroup.Resources
}

// Cgroup returns the parent of the cgroups of the pod's containers.
func (s *Shares) Cgroup(pod *v1.Pod) cgroup.Name {
	return cgroup.Pods(s.Root).Class(podspec.QOS(pod)).Pod(string(pod.UID))
}

// Parent returns the pod's cgroup in the form that the runtime takes.
func (s *Shares) Parent(pod *v1.Pod) string { return s.Cgroup(pod).Parent(s.Cgroups.Driver) }

// Path returns the pod's cgroup below the root of each hierarchy.
func (s *Shares) Path(pod *v1.Pod) string { return s.Cgroup(pod).Path(s.Cgroups.Driver) }

// AllPath returns the cgroup of all pods below the root of each hierarchy.
func (s *Shares) AllPath() string { return cgroup.Pods(s.Root).Path(s.Cgroups.Driver) }

// Of returns what the pod is to have of the machine.
func (s *Shares) Of(pod *v1.Pod) cgroup.Resources {
	r := cgroup.ForPod(pod, podspec.QOS(pod), s.Memory)
	r.Pids = s.PidsLimit
	return r
}

// MemoryUse returns the memory, in bytes, that the pod uses, and its limit, 0 for none.
func (s *Shares) MemoryUse(pod *v1.Pod) (used, limit int64, err error) {
	return s.Cgroups.Memory(s.Cgroup(pod))
}

// Give gives the pod so much of the machine, and its class what all pods in it
// ask for.
func (s *Shares) Give(ctx context.Context, pod *v1.Pod, r cgroup.Resources) error {
	s.classes(ctx)
	return s.Cgroups.Apply(s.Cgroup(pod), r)
}

// classes gives all pods together what the node has for them, and the classes
// what their pods ask for. A limit below what is in use waits for the next pod
// that comes or goes.
func (s *Shares) classes(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum cgroup.Sum
	for _, pod := range s.Pods() {
		if !podspec.Terminal(pod.Status.Phase) {
			sum.Add(pod, podspec.QOS(pod))
		}
	}
	all := cgroup.Pods(s.Root)
	for _, c := range []struct {
		name cgroup.Name
		r    cgroup.Resources
	}{
		{all, sum.Node(s.All, s.Memory)},
		{all.Class(v1.PodQOSBurstable), sum.Burstable(s.Memory)},
		{all.Class(v1.PodQOSBestEffort), sum.BestEffort()},
	} {
		path := c.name.Path(s.Cgroups.Driver)
		if has, ok := s.given[path]; ok && reflect.DeepEqual(has, c.r) {
			continue
		}
		delete(s.given, path)
		if err := s.Cgroups.Apply(c.name, c.r); err != nil {
			klog.FromContext(ctx).Error(err, "Giving a class of pods its share of the machine failed", "cgroup", c.name)
			continue
		}
		if s.given == nil {
			s.given = map[string]cgroup.Resources{}
		}
		s.given[path] = c.r
	}
}

// Restore gives all pods together and the classes again what they have got, in case somebody
// else has changed or removed a cgroup of them.
func (s *Shares) Restore(ctx context.Context) {
	s.mu.Lock()
	none := len(s.given) == 0
	clear(s.given)
	s.mu.Unlock()
	if !none {
		s.classes(ctx)
	}
}

// Remove removes what the runtime left of the pod's cgroup.
func (s *Shares) Remove(ctx context.Context, pod *v1.Pod) {
	if err := s.Cgroups.Remove(s.Cgroup(pod)); err != nil {
		klog.FromContext(ctx).V(2).Info("A cgroup of the pod is left until the next sweep", "err", err)
	}
	s.classes(ctx)
}

// Sweep removes the cgroups of pods that are not known.
func (s *Shares) Sweep(ctx context.Context, known func(uid string) bool) {
	for uid, name := range s.Cgroups.PodUIDs(cgroup.Pods(s.Root)) {
		if known(uid) {
			continue
		}
		if err := s.Cgroups.Remove(name); err != nil {
			klog.FromContext(ctx).V(2).Info("Removing a cgroup failed", "cgroup", name, "err", err)
		}
	}
}
