package pod

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/podspec"
)

// The reasons why a resize that waits is looked at again, as the metrics name them.
var (
	podUpdated  = "pod_updated"
	podResized  = "pod_resized"
	podsRemoved = "pods_removed"
	periodic    = "periodic_retry"
)

// resizeRetry is how often a resize that waits is looked at where no event asks for it,
// as by a kubelet.
const resizeRetry = 3 * time.Minute

// turn is a change of a pod's resources that waits for its turn.
type turn struct {
	pod   *v1.Pod // with what it asks for
	grows bool    // it asks for more than it has
	since time.Time
}

func newTurn(pod, has *v1.Pod, since *time.Time) turn {
	asks, have := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}), resourcehelper.PodRequests(has, resourcehelper.PodResourcesOptions{})
	return turn{pod, asks.Cpu().Cmp(*have.Cpu()) > 0 || asks.Memory().Cmp(*have.Memory()) > 0, ptr.Deref(since, time.Unix(1<<40, 0))}
}

// compare orders changes as a kubelet does: first those to no more than the pod has, then
// by priority, then Guaranteed pods, then those that have waited for longer.
func (t turn) compare(u turn) int {
	rank := func(b bool) int {
		if b {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(rank(!t.grows), rank(!u.grows)),
		-cmp.Compare(ptr.Deref(t.pod.Spec.Priority, 0), ptr.Deref(u.pod.Spec.Priority, 0)),
		cmp.Compare(rank(podspec.QOS(t.pod) == v1.PodQOSGuaranteed), rank(podspec.QOS(u.pod) == v1.PodQOSGuaranteed)),
		t.since.Compare(u.since))
}

// ahead returns the other pods whose changes wait and whose turns are before that of pod,
// in their order.
func (rs *resizing) ahead(pod, has *v1.Pod) []*v1.Pod {
	mine := newTurn(pod, has, rs.deferred.Load())
	var turns []turn
	rs.Manager.mu.Lock()
	for uid, w := range rs.workers {
		since := w.resizing.deferred.Load()
		if uid == rs.uid || since == nil {
			continue
		}
		if p := w.latest(); p.DeletionTimestamp == nil {
			if t := newTurn(p, w.resizing.allocated(p), since); t.compare(mine) < 0 {
				turns = append(turns, t)
			}
		}
	}
	rs.Manager.mu.Unlock()
	slices.SortFunc(turns, turn.compare)
	var out []*v1.Pod
	for _, t := range turns {
		out = append(out, t.pod)
	}
	return out
}

// wakePending wakes the workers of the pods that wait for room, because of what why says.
func (m *Manager) wakePending(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
		if w.resizing.deferred.Load() != nil {
			w.resizing.retried.Store(&why)
			w.notify()
		}
	}
}

// belowUse returns an error if a limit of memory of the pod, or of a running container,
// would become less than what is in use: the kernel would kill a process, or refuse.
func (rs *resizing) belowUse(ctx context.Context, pod *v1.Pod, obs *observed) error {
	var below []error
	restarts, resized := false, false
	for _, c := range podspec.Containers(pod) {
		st := obs.current(c.Name)
		if st == nil || st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		has, known := rs.of(st.Id)
		if known && restartsFor(c, &has) {
			restarts = true
			continue
		}
		want, had := c.Resources.Limits.Memory().Value(), has.Limits.Memory().Value()
		if !known || !less(want, had) {
			continue
		}
		resized = true
		r, err := rs.CRI.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: st.Id})
		if err != nil {
			return err
		}
		if used := int64(r.GetStats().GetMemory().GetUsageBytes().GetValue()); used >= want {
			below = append(below, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", c.Name, want, used))
		}
	}
	if !restarts && (resized || rs.progress != nil) {
		want := rs.Shares.Of(pod).Memory
		used, had, err := rs.Shares.MemoryUse(pod)
		switch {
		case err != nil:
			return err
		case less(want, had) && used >= want:
			below = append([]error{fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", want, used)}, below...)
		}
	}
	return utilerrors.NewAggregate(below)
}

// less reports whether a limit is below another; 0 is none.
func less(a, b int64) bool { return a > 0 && (b <= 0 || a < b) }
