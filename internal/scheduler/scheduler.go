package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	policylisters "k8s.io/client-go/listers/policy/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	fw "keelson.dev/keelson/internal/scheduler/framework"
	"keelson.dev/keelson/internal/scheduler/plugins"
	"keelson.dev/keelson/internal/trace"
)

// Options of a scheduler.
type Options struct {
	// SchedulerName is the spec.schedulerName of the pods it takes; default
	// "default-scheduler".
	SchedulerName string
	// Recorder of events; nil records none.
	Recorder record.EventRecorder
	Clock    clock.WithTicker
	// Binders is how many bindings are written at once; default 16.
	Binders int
	// Rand breaks ties between nodes; default is random.
	Rand func(n int) int
	// Metrics is where the scheduler's metrics are registered; nil is nowhere.
	Metrics prometheus.Registerer
	// PercentageOfNodesToScore bounds the search for nodes that fit, for pods
	// that share no results with others. 0 adapts it to the number of nodes.
	// Pods that share results are always placed on the best of all nodes.
	PercentageOfNodesToScore int
	// NoSharing tries each pod on its own.
	NoSharing bool
	// Trace is told what was decided on each pod, and why; it may be nil.
	Trace *trace.Reporter
}

// Scheduler places pods.
type Scheduler struct {
	Options
	client    kubernetes.Interface
	snapshot  *snapshot
	queue     *queue
	profile   *profile
	classes   *classes
	nominated *nominated
	budgets   policylisters.PodDisruptionBudgetLister
	metrics   *metrics
	synced    []cache.InformerSynced

	next int // where the search for nodes begins
	// verdict is that of the attempt that goes on, under the lock of the snapshot.
	verdict verdict
	slots   chan struct{}
	wg      sync.WaitGroup
}

// New registers what the scheduler needs with the informers, which the caller
// starts afterwards.
func New(client kubernetes.Interface, inf informers.SharedInformerFactory, o Options) (*Scheduler, error) {
	if o.SchedulerName == "" {
		o.SchedulerName = v1.DefaultSchedulerName
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Binders == 0 {
		o.Binders = 16
	}
	if o.Rand == nil {
		o.Rand = rand.IntN
	}
	s := &Scheduler{Options: o, client: client, snapshot: newSnapshot(), classes: newClasses(), nominated: newNominated(), slots: make(chan struct{}, o.Binders),
		budgets: inf.Policy().V1().PodDisruptionBudgets().Lister()}
	s.profile = defaultProfile(s.snapshot, client, inf)
	s.queue = newQueue(o.Clock, s.profile.hints())
	s.metrics = newMetrics(o.Metrics, s)
	s.queue.refusals = s.refusals
	s.queue.incoming = func(part, event string) { s.metrics.incoming.WithLabelValues(part, event).Inc() }
	return s, s.listen(inf)
}

// Run places pods until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return ctx.Err()
	}
	s.wg.Go(func() {
		t := s.Clock.NewTicker(flushEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C():
				s.queue.flush()
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		w, pod := s.queue.next(ctx)
		if w == nil {
			break
		}
		s.try(ctx, w, pod)
	}
	s.wg.Wait()
	return nil
}

// attempt is one try to place a pod.
type attempt struct {
	w     *waiter
	pod   *v1.Pod
	begin time.Time
	state *fw.CycleState
	// tries is its number, and since and why when and for what the pod came into the queue.
	tries int
	since time.Time
	why   string
}

// try looks for a node for a pod and begins its binding.
func (s *Scheduler) try(ctx context.Context, w *waiter, pod *v1.Pod) {
	ctx = trace.WithCause(ctx, pod)
	a := &attempt{w: w, pod: pod, begin: s.Clock.Now(), state: fw.NewCycleState(), tries: w.attempts, since: w.since, why: w.why}
	s.snapshot.mu.Lock()
	if p, ok := s.snapshot.pods[pod.UID]; ok && p.assumed {
		s.snapshot.mu.Unlock()
		s.queue.done(w) // it is being bound already
		return
	}
	s.verdict = verdict{}
	node, err := s.place(ctx, a.state, pod)
	if err == nil {
		s.nominated.set(pod, "")
		s.snapshot.placeLocked(fw.NewPodInfoOf(pod, plugins.Requests(a.state, pod)).At(node), node, true)
		err = s.reserve(ctx, a, node)
	}
	f := s.afterFailure(ctx, a, err)
	v := s.verdict
	s.snapshot.mu.Unlock()
	s.tell(a, node, v, err)
	s.metrics.algorithmDuration.Observe(s.Clock.Since(a.begin).Seconds())
	if err != nil {
		s.failed(ctx, a, f)
		return
	}
	s.queue.binding(w)
	if slices.ContainsFunc(s.profile.preBinds, func(p fw.PreBindPlugin) bool { return !a.state.SkipFilter.Has(p.Name()) }) {
		// It may wait for its volumes or devices; others need not wait with it.
		s.wg.Go(func() { s.bound(ctx, a, node, s.prepare(ctx, a, node)) })
		return
	}
	s.slots <- struct{}{}
	s.wg.Go(func() {
		defer func() { <-s.slots }()
		s.bound(ctx, a, node, s.bind(ctx, pod, node))
	})
}

// reserve runs the Reserve plugins. The snapshot is locked.
func (s *Scheduler) reserve(ctx context.Context, a *attempt, node string) error {
	for _, p := range s.profile.reserves {
		if st := p.Reserve(ctx, a.state, a.pod, node); !st.IsSuccess() {
			s.unreserve(ctx, a, node)
			s.snapshot.removeLocked(a.pod)
			return fmt.Errorf("running Reserve plugin %q: %w", p.Name(), st.AsError())
		}
	}
	return nil
}

func (s *Scheduler) unreserve(ctx context.Context, a *attempt, node string) {
	for _, p := range s.profile.reserves {
		p.Unreserve(ctx, a.state, a.pod, node)
	}
}

// prepare runs the PreBind plugins, and binds.
func (s *Scheduler) prepare(ctx context.Context, a *attempt, node string) error {
	for _, p := range s.profile.preBinds {
		if a.state.SkipFilter.Has(p.Name()) {
			continue
		}
		if st := p.PreBind(ctx, a.state, a.pod, node); !st.IsSuccess() {
			return fmt.Errorf("running PreBind plugin %q: %w", p.Name(), st.AsError())
		}
	}
	return s.bind(ctx, a.pod, node)
}

func (s *Scheduler) bind(ctx context.Context, pod *v1.Pod, node string) error {
	return s.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
}

// bound ends an attempt whose binding has been written, or has failed.
func (s *Scheduler) bound(ctx context.Context, a *attempt, node string, err error) {
	if err == nil {
		s.queue.done(a.w)
		s.placed(a.w, a.begin)
		if s.Recorder != nil {
			s.Recorder.Eventf(a.pod, v1.EventTypeNormal, "Scheduled", "Successfully assigned %v/%v to %v", a.pod.Namespace, a.pod.Name, node)
		}
		return
	}
	if ctx.Err() != nil {
		return
	}
	s.snapshot.mu.Lock()
	s.unreserve(ctx, a, node)
	s.snapshot.unassume(a.pod)
	s.snapshot.mu.Unlock()
	s.queue.happened(fw.AssignedPodDelete, a.pod, nil)
	if apierrors.IsNotFound(err) {
		s.queue.done(a.w)
		return
	}
	s.failed(ctx, a, s.afterFailure(ctx, a, fmt.Errorf("binding rejected: %w", err)))
}

// errNoNodes is the message of a cluster without nodes.
var errNoNodes = errors.New("no nodes available to schedule pods")

// place finds the node for a pod. The snapshot is locked.
func (s *Scheduler) place(ctx context.Context, state *fw.CycleState, pod *v1.Pod) (string, error) {
	nodes := s.snapshot.list
	if len(nodes) == 0 {
		return "", errNoNodes
	}
	d := fw.NewDiagnosis()
	names, st := s.profile.preFilter(ctx, state, pod, d)
	switch {
	case st.IsRejected():
		d.PreFilterMsg, d.Absent = st.Message(), st
		return "", &fw.FitError{Pod: pod, NumAllNodes: len(nodes), Diagnosis: d}
	case !st.IsSuccess():
		return "", st.AsError()
	}
	if n := s.snapshot.Node(pod.Status.NominatedNodeName); n != nil && (names == nil || names.Has(n.Node.Name)) && s.filter(ctx, state, pod, n).IsSuccess() {
		return n.Node.Name, nil
	}
	if names == nil && !s.NoSharing && !s.nominated.matter(pod) {
		if c := s.classes.find(ctx, s.profile, s.snapshot, pod, state); c != nil {
			if err := c.refresh(ctx); err != nil {
				return "", err
			}
			n := c.pick(s.Rand)
			if s.Trace != nil {
				s.verdict = c.verdict(n != nil)
			}
			if n != nil {
				return n.Node.Name, nil
			}
			c.diagnose(d)
			return "", &fw.FitError{Pod: pod, NumAllNodes: len(nodes), Diagnosis: d}
		}
	}
	if names != nil {
		nodes = nodes[:0:0]
		for _, name := range sets.List(names) {
			if n := s.snapshot.Node(name); n != nil {
				nodes = append(nodes, n)
			}
		}
	}
	feasible, err := s.fitting(ctx, state, pod, nodes, d)
	if s.Trace != nil {
		s.verdict = newVerdict(len(s.snapshot.list), len(feasible), d)
	}
	switch {
	case err != nil:
		return "", err
	case len(feasible) == 0:
		return "", &fw.FitError{Pod: pod, NumAllNodes: len(s.snapshot.list), Diagnosis: d}
	case len(feasible) == 1:
		return feasible[0].Node.Name, nil
	}
	totals, err := s.profile.score(ctx, state, pod, feasible)
	if err != nil {
		return "", err
	}
	best := s.pick(totals)
	if s.Trace != nil {
		s.verdict.scored(totals, best, feasible)
	}
	return feasible[best].Node.Name, nil
}

// fitting looks for nodes that fit, until there are enough.
func (s *Scheduler) fitting(ctx context.Context, state *fw.CycleState, pod *v1.Pod, nodes []*fw.NodeInfo, d *fw.Diagnosis) ([]*fw.NodeInfo, error) {
	want := enough(len(nodes), s.PercentageOfNodesToScore)
	feasible := make([]*fw.NodeInfo, 0, want)
	tried := 0
	for i := range nodes {
		n := nodes[(s.next+i)%len(nodes)]
		tried++
		st := s.filter(ctx, state, pod, n)
		switch {
		case st.IsSuccess():
			feasible = append(feasible, n)
		case st.IsRejected():
			d.NodeToStatus[n.Node.Name] = st
			d.UnschedulablePlugins.Insert(st.Plugin())
		default:
			return nil, filterError(st)
		}
		if len(feasible) == want {
			break
		}
	}
	s.next = (s.next + tried) % len(s.snapshot.list)
	return feasible, nil
}

// filter runs the filters for a node, first as if the pods nominated for it
// that go before pod ran there, then without them: they may not come, and pod
// may not rely on them.
func (s *Scheduler) filter(ctx context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	if others := s.nominated.before(pod, n.Node.Name); len(others) > 0 {
		with, state := n.Clone(), state.Clone()
		for _, p := range others {
			with.AddPod(p)
			s.profile.addPod(ctx, state, pod, p, with)
		}
		if st := s.profile.filter(ctx, state, pod, with); !st.IsSuccess() {
			return st
		}
	}
	return s.profile.filter(ctx, state, pod, n)
}

// enough returns how many feasible nodes are looked for. Upstream's adaptive share
// is all up to 100, then from 50% down to 5%.
func enough(nodes, percentage int) int {
	if nodes < 100 {
		return nodes
	}
	if percentage == 0 {
		percentage = max(5, 50-nodes/125)
	}
	return max(100, nodes*percentage/100)
}

// pick picks one of the best.
func (s *Scheduler) pick(totals []int64) int {
	best, ties := 0, 1
	for i := 1; i < len(totals); i++ {
		switch {
		case totals[i] > totals[best]:
			best, ties = i, 1
		case totals[i] == totals[best]:
			if ties++; s.Rand(ties) == 0 {
				best = i
			}
		}
	}
	return best
}

// aftermath is the outcome of a failed attempt.
type aftermath struct {
	err     error
	refused sets.Set[string] // by these plugins; empty after an error
	reason  string
	// nominate is the node to nominate, empty to take the nomination back; keep
	// leaves it as it is.
	nominate string
	keep     bool
	victims  *candidate
	losers   []*v1.Pod // whose nomination the victims' end overrides
	acts     []func(context.Context)
}

// afterFailure decides on what follows; it looks for pods to preempt. The
// snapshot is locked, where the pod fits nowhere.
func (s *Scheduler) afterFailure(ctx context.Context, a *attempt, err error) *aftermath {
	if err == nil {
		return nil
	}
	f := &aftermath{err: err, refused: sets.New[string](), reason: v1.PodReasonSchedulerError}
	var fit *fw.FitError
	switch {
	case errors.As(err, &fit):
		f.refused, f.reason = fit.Diagnosis.UnschedulablePlugins, v1.PodReasonUnschedulable
		var messages []string
		for _, p := range s.profile.posts {
			message, act := p.PostFilter(a.state, a.pod)
			if message != "" {
				messages = append(messages, message)
			}
			if act != nil {
				f.acts = append(f.acts, act)
			}
		}
		var message string
		if f.victims, f.keep, message = s.preempt(ctx, a.state, a.pod, fit.Diagnosis); message != "" {
			messages = append(messages, message)
		}
		if f.victims == nil {
			fit.Diagnosis.PostFilterMsg = strings.Join(messages, ", ")
		}
		if c := f.victims; c != nil {
			f.nominate, f.keep = c.node, false
			f.losers = s.nominated.after(a.pod, c.node)
			for _, p := range f.losers {
				s.nominated.set(p, "")
			}
			s.metrics.preemptionVictims.Observe(float64(len(c.victims)))
		}
		if !f.keep {
			s.nominated.set(a.pod, f.nominate)
		}
	case errors.Is(err, errNoNodes):
		f.refused.Insert("NodeName") // it waits for a node
		f.reason = v1.PodReasonUnschedulable
	}
	return f
}

// failed reports why a pod has no node, and puts it back.
func (s *Scheduler) failed(ctx context.Context, a *attempt, f *aftermath) {
	if ctx.Err() != nil {
		return
	}
	if f.reason == v1.PodReasonSchedulerError {
		s.attempted(failure, a.begin)
		klog.FromContext(ctx).Error(f.err, "Scheduling failed; trying again", "pod", klog.KObj(a.pod))
	} else {
		s.attempted(unschedulable, a.begin)
	}
	for _, act := range f.acts {
		act(ctx)
	}
	message := f.err.Error()
	if !s.queue.refuse(a.w, f.refused, f.victims != nil) {
		s.nominate(a.pod, "")
		return
	}
	if s.Recorder != nil {
		s.Recorder.Event(a.pod, v1.EventTypeWarning, "FailedScheduling", message)
	}
	c := v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: f.reason, Message: message, ObservedGeneration: a.pod.Generation, LastTransitionTime: s.now()}
	err := s.patchStatus(ctx, a.pod, func(st *v1.PodStatus) {
		setCondition(st, c)
		if !f.keep {
			st.NominatedNodeName = f.nominate
		}
	})
	if err != nil && !apierrors.IsNotFound(err) {
		klog.FromContext(ctx).Error(err, "Updating a pod's condition failed", "pod", klog.KObj(a.pod))
	}
	if f.victims != nil {
		s.wg.Go(func() {
			s.queue.release(a.w, !s.evict(ctx, a.pod, f.victims, f.losers))
		})
	}
}

// gated reports that a pod waits for its gates.
func (s *Scheduler) gated(ctx context.Context, pod *v1.Pod) {
	c := v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: v1.PodReasonSchedulingGated, ObservedGeneration: pod.Generation,
		Message: "Scheduling is blocked due to non-empty scheduling gates", LastTransitionTime: s.now()}
	if err := s.patchStatus(ctx, pod, func(st *v1.PodStatus) { setCondition(st, c) }); err != nil && !apierrors.IsNotFound(err) {
		klog.FromContext(ctx).Error(err, "Updating a pod's condition failed", "pod", klog.KObj(pod))
	}
}
