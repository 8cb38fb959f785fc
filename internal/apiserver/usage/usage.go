package usage

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
	"k8s.io/utils/clock"
)

const (
	// resolution is how old an agent's answer may be that is used again: as often
	// as metrics-server asks.
	resolution = 15 * time.Second
	// window is the time over which agents say that they measure a rate.
	window = 10 * time.Second
	// patience is how long an agent may take to answer.
	patience = 10 * time.Second
	// maxSummary bounds an agent's answer, in bytes.
	maxSummary = 64 << 20
	// callers is how many agents are asked at once.
	callers = 32
)

// Stats measures a node whose agent is in this process.
type Stats func(context.Context) (*statsapi.Summary, error)

// Config configures a Meter.
type Config struct {
	Nodes corelisters.NodeLister
	Pods  corelisters.PodLister
	// OfNode returns the pods that are bound to a node.
	OfNode func(ctx context.Context, node string) ([]*v1.Pod, error)
	// Agent returns the way to the server of a node's agent.
	Agent func(ctx context.Context, node *v1.Node) (*url.URL, http.RoundTripper, error)
	// Simulated reports whether a node is simulated.
	Simulated func(*v1.Node) bool
	Clock     clock.PassiveClock
}

// Meter measures the nodes of a cluster.
type Meter struct {
	Config
	mu    sync.Mutex
	local map[string]Stats
	asked map[string]*answer // by node
}

// answer is the last answer of an agent.
type answer struct {
	mu      sync.Mutex // held while the agent is asked
	at      time.Time
	summary *statsapi.Summary             // nil if it did not answer
	pods    map[string]*statsapi.PodStats // by namespace and name
}

// New makes a meter.
func New(c Config) *Meter {
	return &Meter{Config: c, local: map[string]Stats{}, asked: map[string]*answer{}}
}

// Local makes the meter measure a node without a network between.
func (m *Meter) Local(node string, stats Stats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.local[node] = stats
}

// of returns what the agent of a node said last; it is asked if that was long ago.
func (m *Meter) of(ctx context.Context, node *v1.Node) *answer {
	m.mu.Lock()
	a := m.asked[node.Name]
	if a == nil {
		a = &answer{}
		m.asked[node.Name] = a
	}
	stats := m.local[node.Name]
	m.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	now := m.Clock.Now()
	if !a.at.IsZero() && now.Sub(a.at) < resolution {
		return a
	}
	if stats == nil {
		stats = func(ctx context.Context) (*statsapi.Summary, error) { return m.remote(ctx, node) }
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	summary, err := stats(ctx)
	if ctx.Err() != nil && err != nil && m.Clock.Now().Sub(now) < patience {
		return a // the client has gone: the next one asks again
	}
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Measuring a node failed", "node", node.Name, "err", err)
	}
	a.at, a.summary, a.pods = now, summary, map[string]*statsapi.PodStats{}
	if summary != nil {
		for i := range summary.Pods {
			p := &summary.Pods[i]
			a.pods[p.PodRef.Namespace+"/"+p.PodRef.Name] = p
		}
	}
	return a
}

// remote asks the agent of a node.
func (m *Meter) remote(ctx context.Context, node *v1.Node) (*statsapi.Summary, error) {
	base, transport, err := m.Agent(ctx, node)
	if err != nil {
		return nil, err
	}
	u := base.JoinPath("stats", "summary")
	u.RawQuery = "only_cpu_and_memory=true"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", u, resp.Status)
	}
	var s statsapi.Summary
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxSummary)).Decode(&s); err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", u, err)
	}
	return &s, nil
}

// ask returns the answers of the agents of nodes, by the nodes' names.
func (m *Meter) ask(ctx context.Context, nodes []*v1.Node) map[string]*answer {
	out := make(map[string]*answer, len(nodes))
	var mu sync.Mutex
	var wg sync.WaitGroup
	turn := make(chan struct{}, callers)
	for _, n := range nodes {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			a := m.of(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			out[n.Name] = a
		})
	}
	wg.Wait()
	m.forget()
	return out
}

// forget drops what is known of nodes that are no more.
func (m *Meter) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.asked {
		if _, err := m.Nodes.Get(name); err != nil {
			delete(m.asked, name)
		}
	}
}

// used returns a cgroup's usage; false where it has not been measured twice.
func used(cpu *statsapi.CPUStats, mem *statsapi.MemoryStats) (v1.ResourceList, bool) {
	if cpu == nil || cpu.UsageNanoCores == nil || mem == nil || mem.WorkingSetBytes == nil {
		return nil, false
	}
	return v1.ResourceList{
		v1.ResourceCPU:    *resource.NewScaledQuantity(int64(*cpu.UsageNanoCores), resource.Nano), //nolint:gosec // below 9 billion cores
		v1.ResourceMemory: *resource.NewQuantity(int64(*mem.WorkingSetBytes), resource.BinarySI),  //nolint:gosec // below 8 EiB
	}, true
}

func (m *Meter) meta(of metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: of.Name, Namespace: of.Namespace, Labels: of.Labels, CreationTimestamp: metav1.NewTime(m.Clock.Now())}
}

// Nodes are the nodes of metrics.k8s.io.
type Nodes struct{ *Meter }

// Get returns the usage of a node, nil if it is not known.
func (n Nodes) Get(ctx context.Context, _, name string) (runtime.Object, error) {
	node, err := n.Config.Nodes.Get(name)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // a cache's only error is that there is none
	}
	all, err := n.of(ctx, []*v1.Node{node})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// List returns the usage of the nodes whose labels match.
func (n Nodes) List(ctx context.Context, _ string, selector labels.Selector) ([]runtime.Object, error) {
	nodes, err := n.Config.Nodes.List(selector)
	if err != nil {
		return nil, err
	}
	return n.of(ctx, nodes)
}

func (n Nodes) of(ctx context.Context, nodes []*v1.Node) ([]runtime.Object, error) {
	var agents []*v1.Node
	for _, node := range nodes {
		if !n.Simulated(node) {
			agents = append(agents, node)
		}
	}
	answers := n.ask(ctx, agents)
	out := make([]runtime.Object, 0, len(nodes))
	for _, node := range nodes {
		o := &metricsv1.NodeMetrics{ObjectMeta: n.meta(node.ObjectMeta), Window: metav1.Duration{Duration: window}}
		if a, ok := answers[node.Name]; ok {
			if a.summary == nil {
				continue
			}
			usage, ok := used(a.summary.Node.CPU, a.summary.Node.Memory)
			if !ok {
				continue
			}
			o.Timestamp, o.Usage = a.summary.Node.CPU.Time, usage
		} else {
			pods, err := n.OfNode(ctx, node.Name)
			if err != nil {
				return nil, err
			}
			o.Timestamp, o.Usage = metav1.NewTime(n.Clock.Now()), total(pods)
		}
		out = append(out, o)
	}
	return out, nil
}

// total returns the usage of the simulated pods of a node.
func total(pods []*v1.Pod) v1.ResourceList {
	cpu, memory := resource.NewQuantity(0, resource.DecimalSI), resource.NewQuantity(0, resource.BinarySI)
	for _, p := range pods {
		if p.Status.Phase != v1.PodRunning {
			continue
		}
		for _, c := range simulated(p) {
			cpu.Add(c.Usage[v1.ResourceCPU])
			memory.Add(c.Usage[v1.ResourceMemory])
		}
	}
	return v1.ResourceList{v1.ResourceCPU: *cpu, v1.ResourceMemory: *memory}
}

// Pods are the pods of metrics.k8s.io.
type Pods struct{ *Meter }

// Get returns the usage of a pod, nil if it is not known.
func (p Pods) Get(ctx context.Context, namespace, name string) (runtime.Object, error) {
	pod, err := p.Config.Pods.Pods(namespace).Get(name)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // a cache's only error is that there is none
	}
	all := p.of(ctx, []*v1.Pod{pod})
	if len(all) == 0 {
		return nil, nil //nolint:nilnil // it is not known
	}
	return all[0], nil
}

// List returns the usage of the pods in a namespace, or in all, whose labels match.
func (p Pods) List(ctx context.Context, namespace string, selector labels.Selector) ([]runtime.Object, error) {
	pods, err := p.Config.Pods.Pods(namespace).List(selector)
	if err != nil {
		return nil, err
	}
	return p.of(ctx, pods), nil
}

func (p Pods) of(ctx context.Context, pods []*v1.Pod) []runtime.Object {
	nodes, isSimulated := map[string]*v1.Node{}, map[string]bool{}
	for _, pod := range pods {
		name := pod.Spec.NodeName
		if _, known := isSimulated[name]; known || pod.Status.Phase != v1.PodRunning {
			continue
		}
		node, err := p.Config.Nodes.Get(name)
		if isSimulated[name] = err == nil && p.Simulated(node); err == nil && !isSimulated[name] {
			nodes[name] = node
		}
	}
	agents := make([]*v1.Node, 0, len(nodes))
	for _, n := range nodes {
		agents = append(agents, n)
	}
	answers := p.ask(ctx, agents)
	now := metav1.NewTime(p.Clock.Now())
	out := make([]runtime.Object, 0, len(pods))
	for _, pod := range pods {
		if pod.Status.Phase != v1.PodRunning {
			continue
		}
		o := &metricsv1.PodMetrics{ObjectMeta: p.meta(pod.ObjectMeta), Timestamp: now, Window: metav1.Duration{Duration: window}}
		if isSimulated[pod.Spec.NodeName] {
			o.Containers = simulated(pod)
		} else if a := answers[pod.Spec.NodeName]; a == nil || !measured(a.pods[pod.Namespace+"/"+pod.Name], pod, o) {
			continue
		}
		out = append(out, o)
	}
	return out
}

// measured fills in what the agent says of a pod, and reports whether it says it of
// each container: a pod of which a part is missing would seem to use less.
func measured(s *statsapi.PodStats, pod *v1.Pod, o *metricsv1.PodMetrics) bool {
	if s == nil || len(s.Containers) == 0 {
		return false
	}
	// The agent knows a static pod by another UID than that of its mirror here.
	if _, mirror := pod.Annotations[v1.MirrorPodAnnotationKey]; !mirror && s.PodRef.UID != string(pod.UID) {
		return false
	}
	for i := range s.Containers {
		c := &s.Containers[i]
		usage, ok := used(c.CPU, c.Memory)
		if !ok {
			return false
		}
		o.Timestamp = c.CPU.Time
		o.Containers = append(o.Containers, metricsv1.ContainerMetrics{Name: c.Name, Usage: usage})
	}
	return true
}
