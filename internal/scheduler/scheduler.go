package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
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
}

// weighted is a score plugin with its weight.
type weighted struct {
	fw.ScorePlugin
	weight int64
}

// Scheduler places pods.
type Scheduler struct {
	Options
	client     kubernetes.Interface
	snapshot   *snapshot
	queue      *waiting
	namespaces corelisters.NamespaceLister
	synced     []cache.InformerSynced

	preFilters []fw.PreFilterPlugin
	filters    []fw.FilterPlugin
	scores     []weighted

	next    int // where the search for nodes begins
	binding chan struct{}
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
	s := &Scheduler{Options: o, client: client, snapshot: newSnapshot(), binding: make(chan struct{}, o.Binders)}
	s.namespaces = inf.Core().V1().Namespaces().Lister()
	spread := plugins.PodTopologySpread{View: s.snapshot}
	interPod := plugins.InterPodAffinity{View: s.snapshot, NamespaceLabels: func(name string) labels.Set {
		if ns, err := s.namespaces.Get(name); err == nil {
			return ns.Labels
		}
		return nil
	}}
	s.preFilters = []fw.PreFilterPlugin{spread, interPod}
	s.filters = []fw.FilterPlugin{plugins.NodeUnschedulable{}, plugins.NodeName{}, plugins.TaintToleration{}, plugins.NodeAffinity{}, plugins.NodePorts{}, plugins.NodeResourcesFit{}, spread, interPod}
	s.scores = []weighted{{plugins.TaintToleration{}, 3}, {plugins.NodeAffinity{}, 2}, {plugins.NodeResourcesFit{}, 1}, {plugins.BalancedAllocation{}, 1},
		{plugins.ImageLocality{View: s.snapshot}, 1}, {spread, 2}, {interPod, 2}}
	hints := map[string][]fw.EventHint{}
	for _, p := range s.filters {
		if e, ok := p.(fw.EnqueueExtensions); ok {
			hints[p.Name()] = e.EventsToRegister()
		} else {
			hints[p.Name()] = []fw.EventHint{{Events: fw.NodeAdd}}
		}
	}
	s.queue = newWaiting(o.Clock, hints)
	return s, s.listen(inf)
}

// terminal pods need no node any more.
func terminal(p *v1.Pod) bool {
	return p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
}

func (s *Scheduler) listen(inf informers.SharedInformerFactory) error {
	pods, err := inf.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.podChanged(nil, o.(*v1.Pod)) },
		UpdateFunc: func(old, o any) { s.podChanged(old.(*v1.Pod), o.(*v1.Pod)) },
		DeleteFunc: func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			if p, ok := o.(*v1.Pod); ok {
				s.podGone(p)
			}
		},
	})
	if err != nil {
		return err
	}
	nodes, err := inf.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			s.snapshot.setNode(o.(*v1.Node))
			s.queue.happened(fw.NodeAdd, nil, o)
		},
		UpdateFunc: func(old, o any) { s.nodeChanged(old.(*v1.Node), o.(*v1.Node)) },
		DeleteFunc: func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			if n, ok := o.(*v1.Node); ok {
				s.snapshot.removeNode(n.Name)
				s.queue.happened(fw.NodeDelete, o, nil)
			}
		},
	})
	if err != nil {
		return err
	}
	s.synced = []cache.InformerSynced{pods.HasSynced, nodes.HasSynced, inf.Core().V1().Namespaces().Informer().HasSynced}
	return nil
}

func (s *Scheduler) mine(p *v1.Pod) bool {
	return p.Spec.NodeName == "" && p.Spec.SchedulerName == s.SchedulerName && p.DeletionTimestamp == nil && !terminal(p)
}

func (s *Scheduler) podChanged(old, p *v1.Pod) {
	switch {
	case p.Spec.NodeName != "" && terminal(p):
		s.podGone(p)
	case p.Spec.NodeName != "":
		s.queue.delete(p.UID)
		s.snapshot.place(p, p.Spec.NodeName, false)
		var e fw.Event
		if old == nil || old.Spec.NodeName == "" {
			e = fw.AssignedPodAdd
		} else if !labels.Equals(old.Labels, p.Labels) {
			e = fw.AssignedPodUpdateLabel
		} else if old.Generation != p.Generation {
			e = fw.AssignedPodScaleDown
		}
		if e != 0 {
			s.queue.happened(e, old, p)
		}
	case s.mine(p):
		s.queue.put(p, old != nil && old.Generation != p.Generation)
		if len(p.Spec.SchedulingGates) > 0 {
			s.gated(p)
		}
	default:
		s.queue.delete(p.UID)
	}
}

func (s *Scheduler) podGone(p *v1.Pod) {
	s.queue.delete(p.UID)
	if p.Spec.NodeName != "" {
		s.snapshot.remove(p)
		s.queue.happened(fw.AssignedPodDelete, p, nil)
	}
}

func (s *Scheduler) nodeChanged(old, n *v1.Node) {
	var e fw.Event
	was, is := fw.NewResource(old.Status.Allocatable), fw.NewResource(n.Status.Allocatable)
	if !was.Equal(is) {
		e |= fw.NodeUpdateAllocatable
	}
	if !labels.Equals(old.Labels, n.Labels) {
		e |= fw.NodeUpdateLabel
	}
	if old.Spec.Unschedulable != n.Spec.Unschedulable || len(old.Spec.Taints) != len(n.Spec.Taints) {
		e |= fw.NodeUpdateTaint
	} else {
		for i := range n.Spec.Taints {
			if a, b := &n.Spec.Taints[i], &old.Spec.Taints[i]; a.Key != b.Key || a.Value != b.Value || a.Effect != b.Effect {
				e |= fw.NodeUpdateTaint
			}
		}
	}
	s.snapshot.setNode(n)
	if e != 0 {
		s.queue.happened(e, old, n)
	}
}

// Run places pods until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return ctx.Err()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		t := s.Clock.NewTicker(30 * time.Second)
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
		w := s.queue.next(ctx)
		if w == nil {
			break
		}
		s.try(ctx, w, &wg)
	}
	wg.Wait()
	return nil
}

// try looks for a node for a pod and begins its binding.
func (s *Scheduler) try(ctx context.Context, w *waiter, wg *sync.WaitGroup) {
	pod := w.pod
	ctx = trace.WithCause(ctx, pod)
	s.snapshot.mu.Lock()
	node, err := s.place(ctx, pod)
	if err == nil {
		assumed := pod.DeepCopy()
		assumed.Spec.NodeName = node
		s.snapshot.placeLocked(assumed, node, true)
	}
	s.snapshot.mu.Unlock()
	if err != nil {
		s.failed(ctx, w, err)
		return
	}
	s.binding <- struct{}{}
	wg.Go(func() {
		defer func() { <-s.binding }()
		err := s.bind(ctx, pod, node)
		if err == nil {
			s.queue.done(w)
			if s.Recorder != nil {
				s.Recorder.Eventf(pod, v1.EventTypeNormal, "Scheduled", "Successfully assigned %v/%v to %v", pod.Namespace, pod.Name, node)
			}
			return
		}
		if ctx.Err() != nil {
			return
		}
		s.snapshot.unassume(pod)
		s.queue.happened(fw.AssignedPodDelete, pod, nil)
		if apierrors.IsNotFound(err) {
			s.queue.done(w)
			return
		}
		s.failed(ctx, w, err)
	})
}

func (s *Scheduler) bind(ctx context.Context, pod *v1.Pod, node string) error {
	return s.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
}

var errNoNodes = errors.New("no nodes available to schedule pods")

// place runs the plugins for a pod. The snapshot is locked.
func (s *Scheduler) place(ctx context.Context, pod *v1.Pod) (string, error) {
	nodes := s.snapshot.list
	if len(nodes) == 0 {
		return "", errNoNodes
	}
	state := fw.NewCycleState()
	d := fw.NewDiagnosis()
	for _, p := range s.preFilters {
		_, st := p.PreFilter(ctx, state, pod)
		switch {
		case st.IsSkip():
			state.SkipFilter[p.Name()], state.SkipScore[p.Name()] = true, true
		case st.IsRejected():
			d.PreFilterMsg = st.Message()
			d.UnschedulablePlugins.Insert(p.Name())
			return "", &fw.FitError{Pod: pod, NumAllNodes: len(nodes), Diagnosis: d}
		case !st.IsSuccess():
			return "", fmt.Errorf("running PreFilter plugin %q: %w", p.Name(), st.AsError())
		}
	}
	feasible := make([]*fw.NodeInfo, 0, len(nodes))
	want := enough(len(nodes))
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
			return "", fmt.Errorf("running Filter plugin %q: %w", st.Plugin(), st.AsError())
		}
		if len(feasible) == want {
			break
		}
	}
	s.next = (s.next + tried) % len(nodes)
	switch len(feasible) {
	case 0:
		return "", &fw.FitError{Pod: pod, NumAllNodes: len(nodes), Diagnosis: d}
	case 1:
		return feasible[0].Node.Name, nil
	}
	return s.best(ctx, state, pod, feasible)
}

func (s *Scheduler) filter(ctx context.Context, state *fw.CycleState, pod *v1.Pod, n *fw.NodeInfo) *fw.Status {
	for _, p := range s.filters {
		if state.SkipFilter[p.Name()] {
			continue
		}
		if st := p.Filter(ctx, state, pod, n); !st.IsSuccess() {
			return st.WithPlugin(p.Name())
		}
	}
	return nil
}

// enough is how many feasible nodes are looked for, upstream's adaptive share:
// all up to 100, then from 50% down to 5%.
func enough(nodes int) int {
	if nodes <= 100 {
		return nodes
	}
	return max(100, nodes*max(5, 50-nodes/125)/100)
}

// best scores the nodes and picks one of the best.
func (s *Scheduler) best(ctx context.Context, state *fw.CycleState, pod *v1.Pod, nodes []*fw.NodeInfo) (string, error) {
	totals := make([]int64, len(nodes))
	scores := make([]int64, len(nodes))
	for _, p := range s.scores {
		if state.SkipScore[p.Name()] {
			continue
		}
		for i, n := range nodes {
			v, st := p.Score(ctx, state, pod, n)
			if !st.IsSuccess() {
				return "", fmt.Errorf("running Score plugin %q: %w", p.Name(), st.AsError())
			}
			scores[i] = v
		}
		if nz, ok := p.ScorePlugin.(fw.ScoreNormalizer); ok {
			nz.NormalizeScore(ctx, state, pod, nodes, scores)
		}
		for i := range totals {
			totals[i] += scores[i] * p.weight
		}
	}
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
	return nodes[best].Node.Name, nil
}

// failed tells why a pod has no node, and puts it back.
func (s *Scheduler) failed(ctx context.Context, w *waiter, err error) {
	if ctx.Err() != nil {
		return
	}
	refused := sets.New[string]()
	reason := v1.PodReasonSchedulerError
	var fit *fw.FitError
	switch {
	case errors.As(err, &fit):
		refused, reason = fit.Diagnosis.UnschedulablePlugins, v1.PodReasonUnschedulable
	case errors.Is(err, errNoNodes):
		refused.Insert("NodeName") // it waits for a node
		reason = v1.PodReasonUnschedulable
	default:
		klog.FromContext(ctx).Error(err, "Scheduling failed; trying again", "pod", klog.KObj(w.pod))
	}
	pod := w.pod
	s.queue.refuse(w, refused)
	if s.Recorder != nil {
		s.Recorder.Event(pod, v1.EventTypeWarning, "FailedScheduling", err.Error())
	}
	s.condition(ctx, pod, reason, err.Error())
}

// gated tells that a pod waits for its gates.
func (s *Scheduler) gated(pod *v1.Pod) {
	s.condition(trace.WithCause(context.Background(), pod), pod, v1.PodReasonSchedulingGated, "Scheduling is blocked due to non-empty scheduling gates")
}

func (s *Scheduler) condition(ctx context.Context, pod *v1.Pod, reason, message string) {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse && c.Reason == reason && c.Message == message {
			return
		}
	}
	p := pod.DeepCopy()
	c := v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: pod.Generation,
		LastTransitionTime: metav1.NewTime(s.Clock.Now().UTC().Truncate(time.Second))}
	set := false
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == v1.PodScheduled {
			if p.Status.Conditions[i].Status == c.Status {
				c.LastTransitionTime = p.Status.Conditions[i].LastTransitionTime
			}
			p.Status.Conditions[i], set = c, true
		}
	}
	if !set {
		p.Status.Conditions = append(p.Status.Conditions, c)
	}
	if _, err := s.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		klog.FromContext(ctx).V(2).Info("Updating a pod's condition failed", "pod", klog.KObj(pod), "err", err)
	}
}
