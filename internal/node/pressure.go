package node

import (
	"context"
	"errors"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/imagegc"
	"keelson.dev/keelson/internal/node/pod"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/shutdown"
	"keelson.dev/keelson/internal/node/stats"
)

// newStats makes what measures the node and its pods.
func newStats(a *Agent) *stats.Provider {
	return stats.New(stats.Config{
		Node: a.NodeName, Runtime: a.cri, RootDir: a.RootDir, Pods: a.Pods, LogDir: a.layout.PodLogs,
		PodsCgroup: a.shares.AllPath(), Cgroup: a.shares.Path, Clock: a.Clock,
		Measured: a.Volumes.Stats,
		Mounted: func(uid types.UID, name string) (string, bool) {
			v, ok := a.Volumes.Mounted(uid, name)
			return v.HostPath, ok
		},
	})
}

// newEviction makes what evicts pods when the node runs short of something.
func newEviction(a *Agent, thresholds []eviction.Threshold) *eviction.Manager {
	return eviction.New(eviction.Config{
		Thresholds: thresholds, MaxPodGrace: a.Eviction.MaxPodGrace, Transition: a.Eviction.Transition,
		Summary: a.stats.Summary, Pods: evictable{a}, DedicatedImageFs: stats.DedicatedImageFs,
		Reclaim: []func(context.Context) error{a.removeEnded, a.imageGC.DeleteUnused},
		Node:    a.reporter.Ref(), Recorder: a.Recorder, Clock: a.Clock,
		Evicted: a.metrics.Evicted, Age: a.metrics.EvictionAge, Changed: a.reporter.Changed,
	})
}

// evictable are the node's pods as evictions see them.
type evictable struct{ a *Agent }

// Active implements eviction.Pods.
func (e evictable) Active() (out []*v1.Pod) {
	for _, p := range e.a.Pods() {
		if !podspec.Terminal(p.Status.Phase) {
			out = append(out, p)
		}
	}
	return out
}

// Evict implements eviction.Pods.
func (e evictable) Evict(p *v1.Pod, grace int64, message string, condition *v1.PodCondition) {
	e.a.pods.Fail(p.UID, &pod.Failure{Reason: eviction.Reason, Message: message, Grace: &grace, Condition: condition})
}

// Ended implements eviction.Pods.
func (e evictable) Ended(uid types.UID) bool { return e.a.pods.Ended(uid) }

// removeEnded removes the containers that have ended of pods that have.
func (a *Agent) removeEnded(ctx context.Context) error {
	list, err := a.cri.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_EXITED}}})
	if err != nil {
		return err
	}
	ended := map[string]bool{}
	for _, p := range a.Pods() {
		ended[string(p.UID)] = podspec.Terminal(p.Status.Phase)
	}
	var errs []error
	for _, c := range list.Containers {
		if ended[c.Labels[cri.PodUIDLabel]] {
			_, err := a.cri.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.Id})
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// End implements shutdown.Pods.
func (e evictable) End(p *v1.Pod, grace int64, reason, message string, condition *v1.PodCondition) {
	e.a.pods.Fail(p.UID, &pod.Failure{Reason: reason, Message: message, Grace: &grace, Condition: condition})
}

// newShutdown makes what ends pods before the machine shuts down.
func newShutdown(a *Agent) *shutdown.Manager {
	return shutdown.New(shutdown.Config{Settings: a.Shutdown, Connect: a.Login, Pods: evictable{a}, Dir: a.RootDir, Changed: a.reporter.Changed,
		Began: a.metrics.ShutdownBegan, Finished: a.metrics.ShutdownFinished, Node: a.reporter.Ref(), Recorder: a.Recorder, Clock: a.Clock})
}

// imageVolumes returns the images that pods have as volumes.
func (a *Agent) imageVolumes() (out []string) {
	for _, p := range (evictable{a}).Active() {
		for i := range p.Spec.Volumes {
			if v := p.Spec.Volumes[i].Image; v != nil {
				out = append(out, v.Reference)
			}
		}
	}
	return out
}

// newImageGC makes what removes images that nothing uses.
func newImageGC(a *Agent) *imagegc.Collector {
	return imagegc.New(imagegc.Config{Runtime: a.cri, Policy: a.ImageGC, Keep: []string{a.PauseImage}, Volumes: a.imageVolumes, Clock: a.Clock,
		Recorder: a.Recorder, Node: a.reporter.Ref(), Removed: a.metrics.ImageRemoved})
}
