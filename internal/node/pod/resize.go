package pod

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/convert"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/statefile"
)

// resources holds the resources of a pod's containers: Allocated, those that
// the node has set aside for them, by name, and Actuated, those that each
// running one has got, by ID. They are kept in the pod's folder, for the agent
// after this one (https://kep.k8s.io/1287).
type resources struct {
	Allocated map[string]v1.ResourceRequirements
	Actuated  map[string]v1.ResourceRequirements
	// Inherited are the limits that running containers have from the pod, by ID.
	Inherited map[string]v1.ResourceList `json:",omitempty"`
	// Pod is set aside for the pod as a whole, if it asks for that.
	Pod *v1.ResourceRequirements `json:",omitempty"`
}

// resizing holds a pod's resources, and the progress of a change of them.
type resizing struct {
	*base
	kills *kills

	mu    sync.Mutex
	given resources
	// deferred is since when the change has waited for room on the node, nil where it does not.
	deferred atomic.Pointer[time.Time]
	// retried is why a change that waits is looked at again.
	retried atomic.Pointer[string]

	// The rest is the loop's own.
	pending  *v1.PodCondition // of a change that the node cannot make now
	progress *v1.PodCondition // of one that is under way
	begun    time.Time        // when that began; zero if it is not to be measured
}

func newResizing(b *base, k *kills) *resizing { return &resizing{base: b, kills: k} }

// allocate reads what the pod has been given; a new pod is given what it asks
// for.
func (rs *resizing) allocate(pod *v1.Pod) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for i := range pod.Status.Conditions {
		switch c := &pod.Status.Conditions[i]; c.Type {
		case v1.PodResizePending:
			rs.setPending(c)
		case v1.PodResizeInProgress:
			rs.progress = c
		}
	}
	given, _, err := statefile.Recover[resources](rs.Layout.Resources(pod))
	switch {
	case err != nil:
		return err
	case given != nil && given.Allocated != nil:
		if rs.given = *given; rs.given.Actuated == nil {
			rs.given.Actuated = map[string]v1.ResourceRequirements{}
		}
		return nil
	case given != nil:
		klog.Background().Info("What the pod was given is not readable and is taken from its spec", "pod", klog.KObj(pod), "file", rs.Layout.Resources(pod))
	}
	rs.given = resources{Allocated: wanted(pod), Actuated: map[string]v1.ResourceRequirements{}, Pod: pod.Spec.Resources}
	return rs.save(pod)
}

// save writes the file whole or not at all; rs.mu is held.
func (rs *resizing) save(pod *v1.Pod) error {
	return errors.Join(os.MkdirAll(rs.Layout.Pod(rs.uid), 0o750), statefile.Write(rs.Layout.Resources(pod), &rs.given))
}

func wanted(pod *v1.Pod) map[string]v1.ResourceRequirements {
	out := map[string]v1.ResourceRequirements{}
	for _, c := range podspec.Containers(pod) {
		out[c.Name] = c.Resources
	}
	return out
}

// none reports whether a container asks for no resources.
func none(r *v1.ResourceRequirements) bool {
	return len(r.Requests)+len(r.Limits)+len(r.Claims) == 0
}

// allocated returns the pod with the resources that it has been given.
func (rs *resizing) allocated(pod *v1.Pod) *v1.Pod {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.given.Allocated == nil {
		return pod
	}
	same := rs.given.Pod == nil || equality.Semantic.DeepEqual(rs.given.Pod, pod.Spec.Resources)
	for _, c := range podspec.Containers(pod) {
		if r, ok := rs.given.Allocated[c.Name]; ok && !(none(&r) && none(&c.Resources)) && !equality.Semantic.DeepEqual(r, c.Resources) {
			same = false
		}
	}
	if same {
		return pod
	}
	pod = pod.DeepCopy()
	if rs.given.Pod != nil {
		pod.Spec.Resources = rs.given.Pod
	}
	for _, cs := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			if r, ok := rs.given.Allocated[cs[i].Name]; ok {
				cs[i].Resources = r
			}
		}
	}
	return pod
}

// resize gives a running pod the resources that its spec asks for now, if the
// node has them, and brings its containers there. It returns the pod as it is to
// run.
func (rs *resizing) resize(ctx context.Context, pod *v1.Pod, obs *observed) (*v1.Pod, error) {
	has := rs.allocated(pod)
	if has == pod {
		rs.setPending(nil)
		return has, rs.actuate(ctx, has, obs)
	}
	taken, err := rs.take(ctx, pod, has)
	if err != nil {
		return has, err
	}
	if taken {
		// The pod grows before its containers and shrinks after them.
		if err := rs.Shares.Give(ctx, pod, cgroup.Max(rs.Shares.Of(has), rs.Shares.Of(pod))); err != nil {
			return has, err
		}
		has, rs.begun = pod, rs.Clock.Now()
		rs.progress = rs.condition(v1.PodResizeInProgress, pod, "", "")
		rs.Recorder.Event(pod, v1.EventTypeNormal, "ResizeStarted", resizeMessage("Pod resize started", pod, ""))
		rs.wakePending(podResized)
	}
	return has, rs.actuate(ctx, has, obs)
}

// take sets aside what the pod asks for, and reports whether it has: the node may not have
// that, now or ever. Of pods that ask for more at the same time each knows what the others
// have taken.
func (rs *resizing) take(ctx context.Context, pod, has *v1.Pod) (bool, error) {
	node := rs.Admission.Node(ctx, pod)
	rs.taking.Lock()
	defer rs.taking.Unlock()
	if reason, message := rs.Admission.Infeasible(node, pod, rs.ahead(pod, has)); reason != "" {
		if c := rs.pending; c == nil || c.Reason != reason || c.Message != message || c.ObservedGeneration != pod.Generation {
			pending := rs.condition(v1.PodResizePending, pod, reason, message)
			if c != nil && c.Reason == reason {
				pending.LastTransitionTime = c.LastTransitionTime
			}
			rs.setPending(pending)
			rs.Recorder.Event(pod, v1.EventTypeWarning, "Resize"+reason, resizeMessage("Pod resize "+reason, pod, message))
			if reason == v1.PodReasonInfeasible {
				rs.Metrics.ResizeInfeasible(infeasible(message))
			}
		}
		return false, nil
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	before := rs.given
	rs.given.Allocated, rs.given.Pod = wanted(pod), pod.Spec.Resources
	if err := rs.save(pod); err != nil {
		rs.given = before
		return false, err
	}
	if c := rs.pending; c != nil && c.Reason == v1.PodReasonDeferred {
		why := podUpdated
		if c.ObservedGeneration == pod.Generation {
			why = *cmp.Or(rs.retried.Load(), &periodic)
		}
		rs.Metrics.ResizeAccepted(why)
	}
	rs.setPending(nil)
	return true, nil
}

// setPending takes the condition of a change that cannot be made now, nil for none.
func (rs *resizing) setPending(c *v1.PodCondition) {
	rs.pending = c
	rs.retried.Store(nil)
	if c == nil || c.Reason != v1.PodReasonDeferred {
		rs.deferred.Store(nil)
		return
	}
	rs.deferred.Store(&c.LastTransitionTime.Time)
}

// actuate brings the running containers to what they are given: in place, or
// by a restart where their resize policy asks for that.
func (rs *resizing) actuate(ctx context.Context, pod *v1.Pod, obs *observed) error {
	done := true
	var failed error
	refused := rs.belowUse(ctx, pod, obs)
	if refused != nil {
		failed = fmt.Errorf("cannot decrease memory limits: %w", refused)
	}
	for _, c := range podspec.Containers(pod) {
		st := obs.current(c.Name)
		if st == nil || st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			done = done && st != nil && !mayRestart(pod, c, st)
			continue
		}
		rs.mu.Lock()
		has, known := rs.given.Actuated[st.Id]
		inherits := rs.given.Inherited[st.Id]
		rs.mu.Unlock()
		same := equality.Semantic.DeepEqual(has, c.Resources) && equality.Semantic.DeepEqual(inherits, convert.Inherited(pod, c))
		switch {
		case !known || same || refused != nil:
			continue
		case restartsFor(c, &has):
			rs.kills.kill(ctx, pod, st, fmt.Sprintf("Container %s resize requires restart", c.Name), podspec.GracePeriod(pod))
			done = false
			continue
		}
		_, err := rs.CRI.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: st.Id, Linux: rs.Converter.Resources(pod, c)})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("container %s: %w", c.Name, err))
			continue
		}
		if err := rs.actuated(pod, st.Id, c, obs); err != nil {
			return err
		}
	}
	switch {
	case failed != nil:
		if rs.progress == nil || rs.progress.Message != failed.Error() {
			rs.progress = rs.condition(v1.PodResizeInProgress, pod, v1.PodReasonError, failed.Error())
			rs.resized(false)
			rs.Recorder.Event(pod, v1.EventTypeWarning, "ResizeError", resizeMessage("Pod resize error", pod, failed.Error()))
		}
	case rs.progress != nil && done:
		if err := rs.Shares.Give(ctx, pod, rs.Shares.Of(pod)); err != nil {
			return err
		}
		rs.progress = nil
		rs.resized(true)
		rs.Recorder.Event(pod, v1.EventTypeNormal, "ResizeCompleted", resizeMessage("Pod resize completed", pod, ""))
	}
	return failed
}

// resized counts the end of a resize that this agent has begun, or its first failure.
func (rs *resizing) resized(ok bool) {
	if !rs.begun.IsZero() {
		rs.Metrics.Resized(rs.Clock.Since(rs.begun), ok)
		rs.begun = time.Time{}
	}
}

// infeasible returns the metrics' name of why a resize is infeasible.
func infeasible(message string) string {
	switch {
	case strings.Contains(message, "capacity"):
		return "insufficient_node_allocatable"
	case strings.Contains(message, "CPU Manager"):
		return "guaranteed_pod_cpu_manager_static_policy"
	case strings.Contains(message, "Memory Manager"):
		return "guaranteed_pod_memory_manager_static_policy"
	}
	return "other"
}

// actuated notes what a container has got, and forgets containers that the
// runtime has no more.
func (rs *resizing) actuated(pod *v1.Pod, id string, c *v1.Container, obs *observed) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.given.Actuated[id] = c.Resources
	if of := convert.Inherited(pod, c); of != nil {
		if rs.given.Inherited == nil {
			rs.given.Inherited = map[string]v1.ResourceList{}
		}
		rs.given.Inherited[id] = of
	} else {
		delete(rs.given.Inherited, id)
	}
	if obs != nil {
		maps.DeleteFunc(rs.given.Actuated, func(id string, _ v1.ResourceRequirements) bool { return obs.sandboxOf[id] == "" })
		maps.DeleteFunc(rs.given.Inherited, func(id string, _ v1.ResourceList) bool { return obs.sandboxOf[id] == "" })
	}
	return rs.save(pod)
}

// forget forgets what a container got that is removed; that is kept with the next one's.
func (rs *resizing) forget(id string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.given.Actuated, id)
	delete(rs.given.Inherited, id)
}

// of returns what a running container has got, if that is known.
func (rs *resizing) of(id string) (v1.ResourceRequirements, bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r, ok := rs.given.Actuated[id]
	return r, ok
}

// restartsFor reports whether the container's resize policy wants a restart for
// the change.
func restartsFor(c *v1.Container, has *v1.ResourceRequirements) bool {
	for _, p := range c.ResizePolicy {
		request, limit := c.Resources.Requests[p.ResourceName], c.Resources.Limits[p.ResourceName]
		if p.RestartPolicy == v1.RestartContainer && (request.Cmp(has.Requests[p.ResourceName]) != 0 || limit.Cmp(has.Limits[p.ResourceName]) != 0) {
			return true
		}
	}
	return false
}

func (rs *resizing) condition(t v1.PodConditionType, pod *v1.Pod, reason, message string) *v1.PodCondition {
	return &v1.PodCondition{Type: t, Status: v1.ConditionTrue, Reason: reason, Message: message, ObservedGeneration: pod.Generation,
		LastTransitionTime: metav1.NewTime(rs.Clock.Now().UTC().Truncate(time.Second))}
}

// resizeMessage formats a resize as upstream's events do: with the resources of
// the containers as JSON.
func resizeMessage(what string, pod *v1.Pod, failure string) string {
	type container struct {
		Name      string                  `json:"name"`
		Resources v1.ResourceRequirements `json:"resources,omitempty"`
	}
	summary := struct {
		InitContainers []container `json:"initContainers,omitempty"`
		Containers     []container `json:"containers,omitempty"`
		Generation     int64       `json:"generation"`
		Error          string      `json:"error,omitempty"`
	}{Generation: pod.Generation, Error: failure}
	for i := range pod.Spec.InitContainers {
		summary.InitContainers = append(summary.InitContainers, container{pod.Spec.InitContainers[i].Name, pod.Spec.InitContainers[i].Resources})
	}
	for i := range pod.Spec.Containers {
		summary.Containers = append(summary.Containers, container{pod.Spec.Containers[i].Name, pod.Spec.Containers[i].Resources})
	}
	b, err := json.Marshal(summary)
	if err != nil {
		return what
	}
	return what + ": " + string(b)
}
