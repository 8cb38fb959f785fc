package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/cgroup"
)

// resources holds the resources of a pod's containers: Allocated, those that
// the node has set aside for them, by name, and Actuated, those that each
// running one has got, by ID. They are kept in the pod's folder, for the agent
// after this one (https://kep.k8s.io/1287).
type resources struct {
	Allocated map[string]v1.ResourceRequirements
	Actuated  map[string]v1.ResourceRequirements
	// Pod is set aside for the pod as a whole, if it asks for that.
	Pod *v1.ResourceRequirements `json:",omitempty"`
}

// resizing holds a pod's resources, and the progress of a change of them.
type resizing struct {
	given resources
	// deferred: the change waits for room on the node.
	deferred atomic.Bool

	// The rest is the loop's own.
	pending  *v1.PodCondition // of a change that the node cannot make now
	progress *v1.PodCondition // of one that is under way
}

func (a *Agent) resourcesFile(pod *v1.Pod) string {
	return filepath.Join(a.podDir(pod.UID), "resources.json")
}

// allocate reads what the pod has been given; a new pod is given what it asks
// for.
func (w *worker) allocate(pod *v1.Pod) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range pod.Status.Conditions {
		switch c := &pod.Status.Conditions[i]; c.Type {
		case v1.PodResizePending:
			w.resizing.pending = c
		case v1.PodResizeInProgress:
			w.resizing.progress = c
		}
	}
	b, err := os.ReadFile(w.a.resourcesFile(pod))
	if err == nil {
		if err := json.Unmarshal(b, &w.resizing.given); err == nil && w.resizing.given.Allocated != nil {
			if w.resizing.given.Actuated == nil {
				w.resizing.given.Actuated = map[string]v1.ResourceRequirements{}
			}
			return nil
		}
		klog.Background().Info("What the pod was given is not readable and is taken from its spec", "pod", klog.KObj(pod), "file", w.a.resourcesFile(pod))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w.resizing.given = resources{Allocated: wanted(pod), Actuated: map[string]v1.ResourceRequirements{}, Pod: pod.Spec.Resources}
	return w.saveResources(pod)
}

// saveResources writes the file whole or not at all; w.mu is held.
func (w *worker) saveResources(pod *v1.Pod) error {
	if err := os.MkdirAll(w.a.podDir(w.uid), 0o750); err != nil {
		return err
	}
	b, err := json.Marshal(&w.resizing.given)
	if err != nil {
		return err
	}
	return renameio.WriteFile(w.a.resourcesFile(pod), b, 0o600)
}

func wanted(pod *v1.Pod) map[string]v1.ResourceRequirements {
	out := map[string]v1.ResourceRequirements{}
	for _, c := range containersOf(pod) {
		out[c.Name] = c.Resources
	}
	return out
}

// allocated is the pod with the resources that it has been given; w.mu is held.
func (w *worker) allocated(pod *v1.Pod) *v1.Pod {
	if w.resizing.given.Allocated == nil {
		return pod
	}
	same := w.resizing.given.Pod == nil || equality.Semantic.DeepEqual(w.resizing.given.Pod, pod.Spec.Resources)
	for _, c := range containersOf(pod) {
		if r, ok := w.resizing.given.Allocated[c.Name]; ok && !equality.Semantic.DeepEqual(r, c.Resources) {
			same = false
		}
	}
	if same {
		return pod
	}
	pod = pod.DeepCopy()
	if w.resizing.given.Pod != nil {
		pod.Spec.Resources = w.resizing.given.Pod
	}
	for _, cs := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			if r, ok := w.resizing.given.Allocated[cs[i].Name]; ok {
				cs[i].Resources = r
			}
		}
	}
	return pod
}

// resize gives a running pod the resources that its spec asks for now, if the
// node has them, and brings its containers there. It gives the pod as it is to
// run.
func (w *worker) resize(ctx context.Context, pod *v1.Pod, obs *observed) (*v1.Pod, error) {
	w.mu.Lock()
	has := w.allocated(pod)
	w.mu.Unlock()
	if has != pod {
		if reason, message := w.infeasible(ctx, pod); reason != "" {
			if c := w.resizing.pending; c == nil || c.Reason != reason || c.Message != message || c.ObservedGeneration != pod.Generation {
				w.resizing.pending = w.resizeCondition(v1.PodResizePending, pod, reason, message)
				w.a.Recorder.Event(pod, v1.EventTypeWarning, "Resize"+reason, resizeMessage("Pod resize "+reason, pod, message))
			}
		} else {
			w.mu.Lock()
			w.resizing.given.Allocated, w.resizing.given.Pod = wanted(pod), pod.Spec.Resources
			err := w.saveResources(pod)
			w.mu.Unlock()
			if err != nil {
				return has, err
			}
			// The pod grows before its containers and shrinks after them.
			if err := w.a.applyPodCgroup(ctx, pod, cgroup.Max(w.a.podResources(has), w.a.podResources(pod))); err != nil {
				return has, err
			}
			w.resizing.pending, has = nil, pod
			w.resizing.progress = w.resizeCondition(v1.PodResizeInProgress, pod, "", "")
			w.a.Recorder.Event(pod, v1.EventTypeNormal, "ResizeStarted", resizeMessage("Pod resize started", pod, ""))
			w.a.wakePending()
		}
	} else {
		w.resizing.pending = nil
	}
	w.resizing.deferred.Store(w.resizing.pending != nil && w.resizing.pending.Reason == v1.PodReasonDeferred)
	return has, w.actuate(ctx, has, obs)
}

// infeasible gives the reason and message if the node cannot give the pod its
// requested resources: now, or ever.
func (w *worker) infeasible(ctx context.Context, pod *v1.Pod) (reason, message string) {
	node, err := w.a.Client.CoreV1().Nodes().Get(ctx, w.a.NodeName, metav1.GetOptions{})
	if err != nil {
		return v1.PodReasonDeferred, err.Error()
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	have := w.a.status.allocatable()
	for _, r := range []struct {
		name  v1.ResourceName
		value func(v1.ResourceList) int64
	}{
		{v1.ResourceCPU, func(l v1.ResourceList) int64 { return l.Cpu().MilliValue() }},
		{v1.ResourceMemory, func(l v1.ResourceList) int64 { return l.Memory().Value() }},
	} {
		if want, all := r.value(requests), r.value(have); want > all {
			return v1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", r.name, want, all)
		}
	}
	if s := w.a.shortage(node, pod, w.a.others(pod)); s != nil {
		return v1.PodReasonDeferred, s.Error()
	}
	return "", ""
}

// actuate brings the running containers to what they are given: in place, or
// by a restart where their resize policy asks for that.
func (w *worker) actuate(ctx context.Context, pod *v1.Pod, obs *observed) error {
	var failed error
	done := true
	for _, c := range containersOf(pod) {
		st := obs.current(c.Name)
		if st == nil || st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			done = done && st != nil && !mayRestart(pod, c, st)
			continue
		}
		w.mu.Lock()
		has, known := w.resizing.given.Actuated[st.Id]
		w.mu.Unlock()
		switch {
		case !known || equality.Semantic.DeepEqual(has, c.Resources):
			continue
		case restartsFor(c, &has):
			w.kill(ctx, pod, st, fmt.Sprintf("Container %s resize requires restart", c.Name), gracePeriod(pod))
			done = false
			continue
		}
		_, err := w.a.cri.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: st.Id, Linux: w.linuxResources(pod, c)})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("container %s: %w", c.Name, err))
			continue
		}
		if err := w.actuated(pod, st.Id, &c.Resources, obs); err != nil {
			return err
		}
	}
	switch {
	case failed != nil:
		if w.resizing.progress == nil || w.resizing.progress.Message != failed.Error() {
			w.resizing.progress = w.resizeCondition(v1.PodResizeInProgress, pod, v1.PodReasonError, failed.Error())
			w.a.Recorder.Event(pod, v1.EventTypeWarning, "ResizeError", resizeMessage("Pod resize error", pod, failed.Error()))
		}
	case w.resizing.progress != nil && done:
		if err := w.a.applyPodCgroup(ctx, pod, w.a.podResources(pod)); err != nil {
			return err
		}
		w.resizing.progress = nil
		w.a.Recorder.Event(pod, v1.EventTypeNormal, "ResizeCompleted", resizeMessage("Pod resize completed", pod, ""))
	}
	return failed
}

// actuated notes what a container has got, and forgets containers that the
// runtime has no more.
func (w *worker) actuated(pod *v1.Pod, id string, r *v1.ResourceRequirements, obs *observed) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resizing.given.Actuated[id] = *r
	if obs != nil {
		maps.DeleteFunc(w.resizing.given.Actuated, func(id string, _ v1.ResourceRequirements) bool { return obs.sandboxOf[id] == "" })
	}
	return w.saveResources(pod)
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

func (w *worker) resizeCondition(t v1.PodConditionType, pod *v1.Pod, reason, message string) *v1.PodCondition {
	return &v1.PodCondition{Type: t, Status: v1.ConditionTrue, Reason: reason, Message: message, ObservedGeneration: pod.Generation,
		LastTransitionTime: metav1.NewTime(w.a.Clock.Now().UTC().Truncate(time.Second))}
}

// resizeMessage tells of a resize as upstream's events do: with the resources
// of the containers as JSON.
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

// wakePending has the pods that wait for room look again.
func (a *Agent) wakePending() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		if w.resizing.deferred.Load() {
			w.notify()
		}
	}
}
