package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// Preemption makes room for a pod that fits nowhere by ending pods of lower
// priority on one node. The pod is nominated for that node and waits there for
// its victims to end.

// How many nodes are tried at least, upstream's.
const (
	minCandidatesPercent = 10
	minCandidates        = 100
)

// candidate is a node on which the pod fits without the victims.
type candidate struct {
	node       string
	victims    []*v1.Pod // the most important first
	violations int       // of disruption budgets
}

// preempt looks for the victims of a pod that fits nowhere. It returns nil with
// the reason if there are none. keep reports whether an earlier nomination
// still stands. The snapshot is locked.
func (s *Scheduler) preempt(ctx context.Context, state *fw.CycleState, pod *v1.Pod, d *fw.Diagnosis) (c *candidate, keep bool, message string) {
	s.metrics.preemptionAttempts.Inc()
	if why := s.ineligible(pod, d); why != "" {
		return nil, true, "preemption: " + why
	}
	var nodes []*fw.NodeInfo
	for _, n := range s.snapshot.list {
		if d.Status(n.Node.Name).Code() == fw.Unschedulable {
			nodes = append(nodes, n)
		}
	}
	tried := fw.NewDiagnosis()
	tried.Absent = fw.NewStatus(fw.UnschedulableAndUnresolvable, "Preemption is not helpful for scheduling")
	if c := s.candidate(ctx, state, pod, nodes, tried); c != nil {
		return c, true, ""
	}
	return nil, false, "preemption: " + (&fw.FitError{Pod: pod, NumAllNodes: len(s.snapshot.list), Diagnosis: tried}).Error()
}

// ineligible returns the reason why a pod may not preempt others now.
func (s *Scheduler) ineligible(pod *v1.Pod, d *fw.Diagnosis) string {
	if p := pod.Spec.PreemptionPolicy; p != nil && *p == v1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	node := pod.Status.NominatedNodeName
	n := s.snapshot.Node(node)
	if n == nil || d.Status(node).Code() == fw.UnschedulableAndUnresolvable {
		return ""
	}
	for _, p := range n.Pods {
		if lower(p.Pod, pod) && p.Pod.DeletionTimestamp != nil && slices.ContainsFunc(p.Pod.Status.Conditions, func(c v1.PodCondition) bool {
			return c.Type == v1.DisruptionTarget && c.Status == v1.ConditionTrue && c.Reason == v1.PodReasonPreemptionByScheduler
		}) {
			return "not eligible due to a terminating pod on the nominated node."
		}
	}
	return ""
}

func lower(a, b *v1.Pod) bool { return corev1helpers.PodPriority(a) < corev1helpers.PodPriority(b) }

// candidate tries the nodes from a random one on, until there are enough
// candidates, and picks the best.
func (s *Scheduler) candidate(ctx context.Context, state *fw.CycleState, pod *v1.Pod, nodes []*fw.NodeInfo, d *fw.Diagnosis) *candidate {
	if len(nodes) == 0 {
		return nil
	}
	budgets, err := s.budgets.List(labels.Everything())
	if err != nil {
		klog.FromContext(ctx).Error(err, "Listing disruption budgets")
	}
	enough := min(len(nodes), max(minCandidates, len(nodes)*minCandidatesPercent/100))
	var clean, violating []*candidate
	from := s.Rand(len(nodes))
	for i := range nodes {
		n := nodes[(from+i)%len(nodes)]
		c, st := s.victims(ctx, state.Clone(), pod, n.Clone(), budgets)
		switch {
		case !st.IsSuccess():
			d.NodeToStatus[n.Node.Name] = st
			continue
		case c.violations == 0:
			clean = append(clean, c)
		default:
			violating = append(violating, c)
		}
		if len(clean) > 0 && len(clean)+len(violating) >= enough {
			break
		}
	}
	return pickCandidate(append(clean, violating...))
}

// victims finds the least important pods of a node without which pod fits
// there. state and n are its own to change.
func (s *Scheduler) victims(ctx context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo, budgets []*policyv1.PodDisruptionBudget) (*candidate, *fw.Status) {
	var potential []*fw.PodInfo
	for _, p := range n.Pods {
		if lower(p.Pod, pod) {
			potential = append(potential, p)
		}
	}
	if len(potential) == 0 {
		return nil, fw.NewStatus(fw.UnschedulableAndUnresolvable, "No preemption victims found for incoming pod")
	}
	for _, p := range potential {
		n.RemovePod(p.Pod)
		s.profile.removePod(ctx, state, pod, p, n)
	}
	if st := s.filter(ctx, state, pod, n); !st.IsSuccess() {
		return nil, st
	}
	slices.SortFunc(potential, func(a, b *fw.PodInfo) int { return important(a.Pod, b.Pod) })
	c := &candidate{node: n.Node.Name}
	// The most important are let be first, and before all those whose budget
	// allows no disruption.
	violating, rest := byBudget(potential, budgets)
	for i, group := range [][]*fw.PodInfo{violating, rest} {
		for _, p := range group {
			n.AddPod(p)
			s.profile.addPod(ctx, state, pod, p, n)
			if s.filter(ctx, state, pod, n).IsSuccess() {
				continue
			}
			n.RemovePod(p.Pod)
			s.profile.removePod(ctx, state, pod, p, n)
			c.victims = append(c.victims, p.Pod)
			if i == 0 {
				c.violations++
			}
		}
	}
	if len(c.victims) == 0 {
		return nil, fw.AsStatus(fmt.Errorf("expected at least one victim pod on node %q", n.Node.Name))
	}
	slices.SortFunc(c.victims, important)
	return c, nil
}

// important orders pods: higher priority first, then the one that has run for
// longer.
func important(a, b *v1.Pod) int {
	if c := cmp.Compare(corev1helpers.PodPriority(b), corev1helpers.PodPriority(a)); c != 0 {
		return c
	}
	return started(a).Compare(started(b))
}

// started returns when a pod started; a pod not started yet is the youngest.
func started(p *v1.Pod) time.Time {
	if p.Status.StartTime != nil {
		return p.Status.StartTime.Time
	}
	return time.Unix(math.MaxInt32, 0)
}

// byBudget parts the pods whose end would violate a disruption budget from the
// rest. Ends already under way count for nothing.
func byBudget(pods []*fw.PodInfo, budgets []*policyv1.PodDisruptionBudget) (violating, rest []*fw.PodInfo) {
	allowed := make([]int32, len(budgets))
	for i, b := range budgets {
		allowed[i] = b.Status.DisruptionsAllowed
	}
	for _, p := range pods {
		bad := false
		for i, b := range budgets {
			if b.Namespace != p.Pod.Namespace || len(p.Pod.Labels) == 0 {
				continue
			}
			sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
			if err != nil || sel.Empty() || !sel.Matches(labels.Set(p.Pod.Labels)) {
				continue
			}
			if _, ok := b.Status.DisruptedPods[p.Pod.Name]; ok {
				continue
			}
			allowed[i]--
			bad = bad || allowed[i] < 0
		}
		if bad {
			violating = append(violating, p)
		} else {
			rest = append(rest, p)
		}
	}
	return violating, rest
}

// pickCandidate picks by, one after the other: the fewest violations, the
// lowest highest priority, the lowest sum of priorities, the fewest victims,
// the latest start of the most important ones; then the first.
func pickCandidate(all []*candidate) *candidate {
	if len(all) == 0 {
		return nil
	}
	order := func(a, b *candidate) int {
		sum := func(c *candidate) (n int64) {
			for _, v := range c.victims {
				// Each victim counts, also one of negative priority.
				n += int64(corev1helpers.PodPriority(v)) + math.MaxInt32 + 1
			}
			return n
		}
		earliest := func(c *candidate) time.Time {
			t := started(c.victims[0])
			for _, v := range c.victims {
				if corev1helpers.PodPriority(v) == corev1helpers.PodPriority(c.victims[0]) && started(v).Before(t) {
					t = started(v)
				}
			}
			return t
		}
		return cmp.Or(
			cmp.Compare(a.violations, b.violations),
			cmp.Compare(corev1helpers.PodPriority(a.victims[0]), corev1helpers.PodPriority(b.victims[0])),
			cmp.Compare(sum(a), sum(b)),
			cmp.Compare(len(a.victims), len(b.victims)),
			earliest(b).Compare(earliest(a)),
		)
	}
	return slices.MinFunc(all, order)
}

// evict ends the victims, and takes back the nominations of less important pods
// for the node: they look for another one at once. It reports whether the
// deletion of all victims has begun.
func (s *Scheduler) evict(ctx context.Context, pod *v1.Pod, c *candidate, losers []*v1.Pod) bool {
	ok := true
	log := klog.FromContext(ctx)
	for _, p := range losers {
		if p.Status.NominatedNodeName == "" {
			continue
		}
		if err := s.patchStatus(ctx, p, func(st *v1.PodStatus) { st.NominatedNodeName = "" }); err != nil {
			log.Error(err, "Taking back a nomination", "pod", klog.KObj(p))
		}
	}
	for _, v := range c.victims {
		if v.DeletionTimestamp != nil {
			continue
		}
		if err := s.end(ctx, pod, v); err != nil {
			if !apierrors.IsNotFound(err) {
				log.Error(err, "Preempting a pod", "pod", klog.KObj(v), "preemptor", klog.KObj(pod))
				ok = false
			}
			continue
		}
		if s.Recorder != nil {
			s.Recorder.Eventf(v, v1.EventTypeNormal, "Preempted", "Preempted by pod %v on node %v", pod.UID, c.node)
		}
	}
	return ok
}

// end marks a victim as the target of a disruption and deletes it.
func (s *Scheduler) end(ctx context.Context, pod, victim *v1.Pod) error {
	err := s.patchStatus(ctx, victim, func(st *v1.PodStatus) {
		setCondition(st, v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonPreemptionByScheduler, ObservedGeneration: victim.Generation,
			Message: pod.Spec.SchedulerName + ": preempting to accommodate a higher priority pod", LastTransitionTime: s.now()})
	})
	if err != nil {
		return err
	}
	return s.client.CoreV1().Pods(victim.Namespace).Delete(ctx, victim.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(victim.UID))})
}
