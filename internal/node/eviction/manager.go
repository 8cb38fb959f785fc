package eviction

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/static"
)

const (
	// Period is how often the node is looked at.
	Period = 10 * time.Second
	// cleanupTimeout is how long the end of an evicted pod is waited for before
	// another one may be chosen.
	cleanupTimeout = 30 * time.Second
	cleanupPeriod  = time.Second
	// immediate is the grace period, in seconds, of pods that are evicted at once.
	immediate int64 = 1
	// Reason is the reason in the status of evicted pods, and of pods not
	// admitted under pressure.
	Reason = "Evicted"
)

// Pods gives the pods of the node, and ends them.
type Pods interface {
	// Active returns the pods that have not ended.
	Active() []*v1.Pod
	// Evict makes the pod fail within grace seconds; condition may be nil.
	Evict(pod *v1.Pod, grace int64, message string, condition *v1.PodCondition)
	// Ended reports whether nothing of the pod is left on the node.
	Ended(uid types.UID) bool
}

// Config configures a Manager.
type Config struct {
	Thresholds []Threshold
	// MaxPodGrace and Transition are those of Settings.
	MaxPodGrace int64
	Transition  time.Duration
	Summary     func(context.Context) (*statsapi.Summary, error)
	Pods        Pods
	// Reclaim frees disk without ending a pod, where there is something to free:
	// what containers that have ended, and images that nothing uses, take up.
	Reclaim []func(context.Context) error
	// DedicatedImageFs reports whether images are on a file system of their own.
	DedicatedImageFs func(*statsapi.Summary) bool
	Node             *v1.ObjectReference
	Recorder         record.EventRecorder
	Clock            clock.WithTicker
	// Evicted is called for each eviction with the signal that caused it, Age with
	// the age in seconds of the stats by which it was decided. Both may be nil.
	Evicted func(signal string)
	Age     func(signal string, seconds float64)
	// Changed, if set, is called when UnderPressure gives other conditions than
	// before.
	Changed func()
}

// Manager watches a node and evicts its pods.
type Manager struct {
	Config

	mu         sync.Mutex
	conditions map[v1.NodeConditionType]time.Time // when their cause was last there

	// The rest is Run's own.
	since map[string]time.Time // when thresholds were crossed first
	met   []Threshold
	last  map[Signal]observation
	told  []v1.NodeConditionType // the conditions when Changed was called last
}

// New makes a manager.
func New(c Config) *Manager {
	return &Manager{Config: c, conditions: map[v1.NodeConditionType]time.Time{}, since: map[string]time.Time{}}
}

// Look finds out the conditions that the node is in and evicts nothing: a node
// that starts under pressure says so before it is sent pods. It is for the time
// before Run.
func (m *Manager) Look(ctx context.Context) error {
	summary, err := m.Summary(ctx)
	if err != nil {
		return err
	}
	m.update(observe(summary))
	return nil
}

// Run looks at the node until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if evicted := m.pass(ctx); len(evicted) > 0 {
			m.cleanup(ctx, evicted)
			continue
		}
		select {
		case <-m.Clock.After(Period):
		case <-ctx.Done():
		}
	}
}

// cleanup waits until the pods have ended.
func (m *Manager) cleanup(ctx context.Context, pods []*v1.Pod) {
	limit := m.Clock.After(cleanupTimeout)
	for {
		select {
		case <-ctx.Done():
			return
		case <-limit:
			klog.FromContext(ctx).Info("Evicted pods have not ended in time", "pods", klog.KObjSlice(pods))
			return
		case <-m.Clock.After(cleanupPeriod):
		}
		if !slices.ContainsFunc(pods, func(p *v1.Pod) bool { return !m.Pods.Ended(p.UID) }) {
			return
		}
	}
}

// UnderPressure returns those of the conditions that the node is in.
func (m *Manager) UnderPressure() (out []v1.NodeConditionType) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
		if at, ok := m.conditions[c]; ok && m.Clock.Since(at) < m.Transition {
			out = append(out, c)
		}
	}
	return out
}

// Admit returns the message of the refusal of a pod that the node must not take
// while it is under pressure, and "" where it may.
func (m *Manager) Admit(pod *v1.Pod, class v1.PodQOSClass) string {
	conditions := m.UnderPressure()
	if len(conditions) == 0 || IsCritical(pod) {
		return ""
	}
	if len(conditions) == 1 && conditions[0] == v1.NodeMemoryPressure {
		if class != v1.PodQOSBestEffort {
			return ""
		}
		taint := &v1.Taint{Key: v1.TaintNodeMemoryPressure, Effect: v1.TaintEffectNoSchedule}
		if corev1helpers.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, taint, true) {
			return ""
		}
	}
	return fmt.Sprintf("The node had condition: %v. ", conditions)
}

// systemCritical is the least priority of pods that are not evicted.
const systemCritical = 2_000_000_000

// IsCritical reports whether the pod is one that the node must keep: a static
// pod, or one of a system priority.
func IsCritical(pod *v1.Pod) bool {
	return static.Is(pod) || pod.Annotations[v1.MirrorPodAnnotationKey] != "" ||
		pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical
}

// pass looks once, and returns the pods that it evicts.
func (m *Manager) pass(ctx context.Context) []*v1.Pod {
	log := klog.FromContext(ctx)
	summary, err := m.Summary(ctx)
	if err != nil {
		if ctx.Err() == nil {
			log.Error(err, "Eviction: reading the node's stats failed")
		}
		return nil
	}
	seen := observe(summary)
	due := m.update(seen)
	pods := m.Pods.Active()
	stats := map[string]statsapi.PodStats{}
	for _, p := range summary.Pods {
		stats[p.PodRef.UID] = p
	}
	of := func(p *v1.Pod) (statsapi.PodStats, bool) {
		s, ok := stats[string(p.UID)]
		return s, ok
	}
	dedicated := m.DedicatedImageFs(summary)
	if evicted := m.limits(pods, of, dedicated); len(evicted) > 0 {
		return evicted
	}
	if len(due) == 0 {
		return nil
	}
	// Memory before all else: it runs out fastest.
	slices.SortStableFunc(due, func(a, b Threshold) int {
		memory := func(t Threshold) int {
			if signals[t.Signal].resource == v1.ResourceMemory {
				return 0
			}
			return 1
		}
		return memory(a) - memory(b)
	})
	t := due[0]
	resource := signals[t.Signal].resource
	log.Info("Eviction: attempting to reclaim", "resource", resource, "signal", t.Signal)
	m.Recorder.Eventf(m.Node, v1.EventTypeWarning, "EvictionThresholdMet", "Attempting to reclaim %s", resource)
	if m.reclaim(ctx, t.Signal, dedicated) {
		return nil
	}
	rank(pods, of, t.Signal, dedicated)
	if m.Age != nil {
		for _, t := range due {
			m.Age(string(t.Signal), m.Clock.Since(seen[t.Signal].at).Seconds())
		}
	}
	for _, pod := range pods {
		grace := immediate
		if !t.Hard() {
			grace = m.MaxPodGrace
		}
		message, annotations := explain(resource, pod, of, due, seen)
		condition := &v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonTerminationByKubelet, Message: message}
		if m.evict(pod, grace, message, annotations, condition, string(t.Signal)) {
			return []*v1.Pod{pod}
		}
	}
	log.Info("Eviction: there is no pod to evict")
	return nil
}

// update takes note of what is seen, and returns the thresholds that are to be
// acted on: crossed for longer than their grace period, by stats that are new.
func (m *Manager) update(seen map[Signal]observation) []Threshold {
	now := m.Clock.Now()
	over := crossed(m.Thresholds, seen, false)
	for _, t := range crossed(m.met, seen, true) {
		if !slices.ContainsFunc(over, func(o Threshold) bool { return o.key() == t.key() }) {
			over = append(over, t)
		}
	}
	since := map[string]time.Time{}
	m.mu.Lock()
	for _, t := range over {
		first, ok := m.since[t.key()]
		if !ok {
			first = now
		}
		since[t.key()] = first
		m.conditions[signals[t.Signal].condition] = now
	}
	m.mu.Unlock()
	if under := m.UnderPressure(); !slices.Equal(under, m.told) {
		m.told = under
		if m.Changed != nil {
			m.Changed()
		}
	}
	m.since, m.met = since, nil
	var due []Threshold
	for _, t := range over {
		if now.Sub(since[t.key()]) < t.Grace {
			continue
		}
		m.met = append(m.met, t)
		if last, ok := m.last[t.Signal]; !ok || seen[t.Signal].at.IsZero() || seen[t.Signal].at.After(last.at) {
			due = append(due, t)
		}
	}
	m.last = seen
	return due
}

// key distinguishes the thresholds of one signal.
func (t *Threshold) key() string { return string(t.Signal) + "/" + t.Grace.String() }

// reclaim frees what can be freed without ending a pod, and reports whether that
// was enough.
func (m *Manager) reclaim(ctx context.Context, s Signal, dedicatedImageFs bool) bool {
	if signals[s].condition != v1.NodeDiskPressure || dedicatedImageFs && (s == NodeFsAvailable || s == NodeFsInodesFree) {
		return false
	}
	for _, f := range m.Reclaim {
		if err := f(ctx); err != nil {
			klog.FromContext(ctx).Error(err, "Eviction: reclaiming disk without ending a pod failed")
		}
	}
	summary, err := m.Summary(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Eviction: reading the node's stats failed")
		return false
	}
	return len(crossed(m.Thresholds, observe(summary), true)) == 0
}

// evict reports whether the pod is one that may be evicted.
func (m *Manager) evict(pod *v1.Pod, grace int64, message string, annotations map[string]string, condition *v1.PodCondition, signal string) bool {
	if IsCritical(pod) {
		return false
	}
	m.Recorder.AnnotatedEventf(pod, annotations, v1.EventTypeWarning, Reason, "%s", message)
	m.Pods.Evict(pod, grace, message, condition)
	if m.Evicted != nil {
		m.Evicted(signal)
	}
	return true
}

// explain returns the message that names the low resource, and the containers of
// the pod that used more of it than they requested.
func explain(resource v1.ResourceName, pod *v1.Pod, of func(*v1.Pod) (statsapi.PodStats, bool), due []Threshold, seen map[Signal]observation) (string, map[string]string) {
	var b strings.Builder
	fmt.Fprintf(&b, "The node was low on resource: %v. ", resource)
	for _, t := range due {
		if o := seen[t.Signal]; signals[t.Signal].resource == resource {
			fmt.Fprintf(&b, "Threshold quantity: %v, available: %v. ", t.Signal.quantity(t.Value.Of(o.capacity)), t.Signal.quantity(o.available).String())
			break
		}
	}
	annotations := map[string]string{}
	st, ok := of(pod)
	if !ok {
		return b.String(), annotations
	}
	var names, used []string
	for _, cs := range st.Containers {
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			if c.Name != cs.Name {
				continue
			}
			var n uint64
			switch {
			case resource == v1.ResourceEphemeralStorage && cs.Rootfs != nil && cs.Logs != nil:
				n = value(cs.Rootfs.UsedBytes) + value(cs.Logs.UsedBytes)
			case resource == v1.ResourceMemory && cs.Memory != nil:
				n = value(cs.Memory.WorkingSetBytes)
			default:
				continue
			}
			request := c.Resources.Requests[resource]
			if int64(n) > request.Value() {
				q := NodeFsAvailable.quantity(int64(n)).String()
				fmt.Fprintf(&b, "Container %s was using %s, request is %s, has larger consumption of %v. ", c.Name, q, request.String(), resource)
				names, used = append(names, c.Name), append(used, q)
			}
		}
	}
	annotations["offending_containers"] = strings.Join(names, ",")
	annotations["offending_containers_usage"] = strings.Join(used, ",")
	annotations["starved_resource"] = string(resource)
	return b.String(), annotations
}
