package node

import (
	"context"
	"errors"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/imagegc"
	"keelson.dev/keelson/internal/node/stats"
)

// newStats makes what measures the node and its pods.
func newStats(a *Agent) *stats.Provider {
	return stats.New(stats.Config{
		Node: a.NodeName, Runtime: a.cri, RootDir: a.RootDir, Pods: a.Pods, LogDir: a.podLogDir,
		PodsCgroup: cgroup.Pods(a.CgroupRoot).Path(a.Cgroups.Driver), Cgroup: func(p *v1.Pod) string { return a.podCgroup(p).Path(a.Cgroups.Driver) }, Clock: a.Clock,
	})
}

// newEviction makes what evicts pods when the node runs short of something.
func newEviction(a *Agent, thresholds []eviction.Threshold) *eviction.Manager {
	return eviction.New(eviction.Config{
		Thresholds: thresholds, MaxPodGrace: a.Eviction.MaxPodGrace, Transition: a.Eviction.Transition,
		Summary: a.stats.Summary, Pods: evictable{a}, DedicatedImageFs: stats.DedicatedImageFs,
		Reclaim: []func(context.Context) error{a.removeEnded, a.imageGC.DeleteUnused},
		Node:    a.status.ref(), Recorder: a.Recorder, Clock: a.Clock,
		Evicted: a.metrics.Evicted, Age: a.metrics.EvictionAge, Changed: a.status.changed,
	})
}

// evictable are the node's pods as evictions see them.
type evictable struct{ a *Agent }

// Active implements eviction.Pods.
func (e evictable) Active() (out []*v1.Pod) {
	for _, p := range e.a.Pods() {
		if !terminal(p.Status.Phase) {
			out = append(out, p)
		}
	}
	return out
}

// Evict implements eviction.Pods.
func (e evictable) Evict(pod *v1.Pod, grace int64, message string, condition *v1.PodCondition) {
	e.a.mu.Lock()
	w := e.a.workers[pod.UID]
	e.a.mu.Unlock()
	if w == nil {
		return
	}
	w.fail(&failure{reason: eviction.Reason, message: message, grace: &grace, condition: condition})
}

// Ended implements eviction.Pods.
func (e evictable) Ended(uid types.UID) bool {
	e.a.mu.Lock()
	w := e.a.workers[uid]
	e.a.mu.Unlock()
	return w == nil || w.ending.done.Load()
}

// fail has the worker end its pod; the first reason counts.
func (w *worker) fail(f *failure) {
	if w.ending.imposed.CompareAndSwap(nil, f) {
		w.notify()
	}
}

// removeEnded removes the containers that have ended of pods that have.
func (a *Agent) removeEnded(ctx context.Context) error {
	list, err := a.cri.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_EXITED}}})
	if err != nil {
		return err
	}
	ended := map[string]bool{}
	for _, p := range a.Pods() {
		ended[string(p.UID)] = terminal(p.Status.Phase)
	}
	var errs []error
	for _, c := range list.Containers {
		if ended[c.Labels[labelPodUID]] {
			_, err := a.cri.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.Id})
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// newImageGC makes what removes images that nothing uses.
func newImageGC(a *Agent) *imagegc.Collector {
	return imagegc.New(imagegc.Config{Runtime: a.cri, Policy: a.ImageGC, Keep: []string{a.PauseImage}, Clock: a.Clock,
		Recorder: a.Recorder, Node: a.status.ref(), Removed: a.metrics.ImageRemoved})
}
