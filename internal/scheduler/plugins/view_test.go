package plugins

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// view is a cluster at rest.
type view []*fw.NodeInfo

func (v view) Nodes() []*fw.NodeInfo { return v }

func (v view) Node(name string) *fw.NodeInfo {
	for _, n := range v {
		if n.Node.Name == name {
			return n
		}
	}
	return nil
}

func (v view) NodesWithAffinity(f func(*fw.NodeInfo)) {
	for _, n := range v {
		if n.WithAffinity > 0 {
			f(n)
		}
	}
}

func (v view) AnyAffinity() (any bool) {
	v.NodesWithAffinity(func(*fw.NodeInfo) { any = true })
	return any
}

func (v view) Image(name string) *fw.ImageState {
	st := &fw.ImageState{Nodes: sets.New[string]()}
	for _, n := range v {
		for _, i := range n.Node.Status.Images {
			for _, have := range i.Names {
				if NormalizeImage(have) == name {
					st.Size = i.SizeBytes
					st.Nodes.Insert(n.Node.Name)
				}
			}
		}
	}
	if st.Nodes.Len() == 0 {
		return nil
	}
	return st
}

// node makes a node with 4 CPUs, 8Gi and room for 10 pods.
func node(name string, change func(*v1.Node), pods ...*v1.Pod) *fw.NodeInfo {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelHostname: name}}}
	n.Status.Allocatable = v1.ResourceList{v1.ResourceCPU: resource.MustParse("4"), v1.ResourceMemory: resource.MustParse("8Gi"), v1.ResourcePods: resource.MustParse("10")}
	if change != nil {
		change(n)
	}
	info := &fw.NodeInfo{}
	info.SetNode(n)
	for _, p := range pods {
		info.AddPod(fw.NewPodInfo(p))
	}
	return info
}

func label(k, v string) func(*v1.Node) { return func(n *v1.Node) { n.Labels[k] = v } }

func taint(effect v1.TaintEffect, keys ...string) func(*v1.Node) {
	return func(n *v1.Node) {
		for _, k := range keys {
			n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: k, Effect: effect})
		}
	}
}

func image(name string, size int64) func(*v1.Node) {
	return func(n *v1.Node) { n.Status.Images = []v1.ContainerImage{{Names: []string{name}, SizeBytes: size}} }
}

func pod(name string, changes ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{"app": "a"}},
		Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "web:1"}}}}
	for _, f := range changes {
		f(p)
	}
	return p
}

// asking sets name, quantity, name, quantity, ...
func asking(pairs ...string) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.Containers[0].Resources.Requests = quantities(pairs) }
}

func quantities(pairs []string) v1.ResourceList {
	out := v1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[v1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func tolerate(t v1.Toleration) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.Tolerations = append(p.Spec.Tolerations, t) }
}

func hostPort(ip string, port int32, protocol v1.Protocol) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, v1.ContainerPort{HostIP: ip, HostPort: port, Protocol: protocol})
	}
}

func labelled(k, v string) func(*v1.Pod) { return func(p *v1.Pod) { p.Labels[k] = v } }

var appA = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}

func spreadBy(key string, skew int32, action v1.UnsatisfiableConstraintAction, changes ...func(*v1.TopologySpreadConstraint)) func(*v1.Pod) {
	return func(p *v1.Pod) {
		c := v1.TopologySpreadConstraint{MaxSkew: skew, TopologyKey: key, WhenUnsatisfiable: action, LabelSelector: appA}
		for _, f := range changes {
			f(&c)
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
	}
}

func near(key string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Affinity = &v1.Affinity{PodAffinity: &v1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{{TopologyKey: key, LabelSelector: appA}}}}
	}
}

func far(key string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Affinity = &v1.Affinity{PodAntiAffinity: &v1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []v1.PodAffinityTerm{{TopologyKey: key, LabelSelector: appA}}}}
	}
}

// outcome of a filter for a pod on each node of a cluster: "" where it fits;
// a message ends with "!" where preemption cannot help.
func filter(t *testing.T, p fw.FilterPlugin, pod *v1.Pod, nodes view) []string {
	t.Helper()
	state := fw.NewCycleState()
	tell := func(st *fw.Status) string {
		switch st.Code() {
		case fw.Success:
			return ""
		case fw.UnschedulableAndUnresolvable:
			return st.Message() + "!"
		case fw.Error:
			t.Fatal(st.AsError())
		}
		return st.Message()
	}
	if pre, ok := p.(fw.PreFilterPlugin); ok {
		_, st := pre.PreFilter(t.Context(), state, pod)
		if st.IsSkip() {
			return make([]string, len(nodes))
		}
		if !st.IsSuccess() {
			return []string{"all: " + tell(st)}
		}
	}
	var out []string
	for _, n := range nodes {
		out = append(out, tell(p.Filter(t.Context(), state, pod, n)))
	}
	return out
}

// score returns the normalized scores of the nodes; nil if there is no score.
func score(t *testing.T, p fw.ScorePlugin, pod *v1.Pod, nodes view) []int64 {
	t.Helper()
	state := fw.NewCycleState()
	if pre, ok := p.(fw.PreScorePlugin); ok {
		if st := pre.PreScore(t.Context(), state, pod, nodes); st.IsSkip() {
			return nil
		} else if !st.IsSuccess() {
			t.Fatal(st.AsError())
		}
	}
	out := make([]int64, len(nodes))
	for i, n := range nodes {
		var st *fw.Status
		if out[i], st = p.Score(t.Context(), state, pod, n); !st.IsSuccess() {
			t.Fatal(st.AsError())
		}
	}
	if nz, ok := p.(fw.ScoreNormalizer); ok {
		nz.NormalizeScore(t.Context(), state, pod, nodes, out)
	}
	return out
}
