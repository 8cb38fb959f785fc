package topology

import (
	"errors"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestMerge checks which nodes the policies choose, and whether they take the pod.
func TestMerge(t *testing.T) {
	yes := func(nodes ...int) Hint { return Hint{MaskOf(nodes...), true} }
	no := func(nodes ...int) Hint { return Hint{MaskOf(nodes...), false} }
	for name, c := range map[string]struct {
		policy string
		hints  []map[string][]Hint
		want   Mask
		refuse bool
	}{
		"nobody cares":              {Restricted, []map[string][]Hint{nil, {"a": nil}}, MaskOf(0, 1), false},
		"single: nobody cares":      {Single, []map[string][]Hint{nil, {"a": nil}}, 0, false},
		"one node in common":        {Restricted, []map[string][]Hint{{"a": {yes(0), yes(1), no(0, 1)}}, {"b": {yes(1), no(0, 1)}}}, MaskOf(1), false},
		"the lowest":                {Restricted, []map[string][]Hint{{"a": {yes(0), yes(1), no(0, 1)}}, {"b": {yes(0), yes(1)}}}, MaskOf(0), false},
		"none in common":            {Restricted, []map[string][]Hint{{"a": {yes(0), no(0, 1)}}, {"b": {yes(1), no(0, 1)}}}, 0, true},
		"best effort without":       {BestEffort, []map[string][]Hint{{"a": {yes(0), no(0, 1)}}, {"b": {yes(1), no(0, 1)}}}, MaskOf(0), false},
		"two needed":                {Restricted, []map[string][]Hint{{"a": {yes(0, 1)}}}, MaskOf(0, 1), false},
		"single: two needed":        {Single, []map[string][]Hint{{"a": {yes(0, 1)}}}, 0, true},
		"cannot be given":           {Restricted, []map[string][]Hint{{"a": {}}}, 0, true},
		"best effort, not possible": {BestEffort, []map[string][]Hint{{"a": {}}}, MaskOf(0, 1), false},
		// A preferred set that is not the same for both is none that is preferred.
		"subset":                {Restricted, []map[string][]Hint{{"a": {yes(0, 1)}}, {"b": {yes(0)}}}, 0, true},
		"nearest to what needs": {BestEffort, []map[string][]Hint{{"a": {yes(0, 1)}}, {"b": {no(0), no(0, 1)}}}, MaskOf(0, 1), false},
	} {
		m, err := New(Config{Policy: c.policy, Nodes: []int{0, 1}})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range c.hints {
			m.Providers = append(m.Providers, &provider{hints: h})
		}
		got, err := m.choose(func(p Provider) map[string][]Hint { return p.Hints(nil, nil) })
		if (err != nil) != c.refuse || err == nil && got.Nodes != c.want {
			t.Errorf("%s: nodes %v, %v; want %v, refused %v", name, got.Nodes, err, c.want, c.refuse)
		}
	}
}

// TestClosest checks that of as many nodes those nearest to each other are chosen where
// the option says so.
func TestClosest(t *testing.T) {
	hints := []Hint{{MaskOf(0, 1), true}, {MaskOf(0, 2), true}, {MaskOf(1, 2), true}}
	distances := map[int][]uint64{0: {10, 30, 20}, 1: {30, 10, 30}, 2: {20, 30, 10}}
	for options, want := range map[string]Mask{"false": MaskOf(0, 1), "true": MaskOf(0, 2)} {
		m, err := New(Config{Policy: BestEffort, Nodes: []int{0, 1, 2}, Distances: distances, Options: map[string]string{"prefer-closest-numa-nodes": options}})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.merger.merge([][]Hint{hints}); got.Nodes != want {
			t.Errorf("prefer-closest-numa-nodes=%s: %v, want %v", options, got.Nodes, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for want, c := range map[string]Config{
		`unknown policy: "x"`:                           {Policy: "x"},
		`unknown scope: "x"`:                            {Scope: "x"},
		`unknown Topology Manager Policy option`:        {Options: map[string]string{"x": "true"}},
		`bad value for option "prefer-closest`:          {Options: map[string]string{"prefer-closest-numa-nodes": "x"}},
		"should not be less than 8":                     {Options: map[string]string{"max-allowable-numa-nodes": "7"}},
		"unsupported on machines with more than 8 NUMA": {Policy: Single, Nodes: []int{0, 1, 2, 3, 4, 5, 6, 7, 8}},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	if _, err := New(Config{Nodes: []int{0, 1, 2, 3, 4, 5, 6, 7, 8}}); err != nil {
		t.Errorf("without a policy: %v", err)
	}
}

// provider gives what its hints say and notes what it is asked.
type provider struct {
	hints     map[string][]Hint
	fail      string // the container that it has nothing for
	allocated []string
}

func (p *provider) Hints(*v1.Pod, *v1.Container) map[string][]Hint { return p.hints }
func (p *provider) PodHints(*v1.Pod) map[string][]Hint             { return p.hints }

func (p *provider) Allocate(_ *v1.Pod, c *v1.Container, h Hint) error {
	if c.Name == p.fail {
		return errors.New("nothing left")
	}
	p.allocated = append(p.allocated, c.Name+"@"+h.Nodes.String())
	return nil
}

func (p *provider) Free(keep func(types.UID) bool) error {
	if !keep("u") {
		p.allocated = nil
	}
	return nil
}

// TestAdmit checks that containers are given their resources in the order of their start,
// and that a pod which is not taken has none.
func TestAdmit(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{InitContainers: []v1.Container{{Name: "i"}}, Containers: []v1.Container{{Name: "a"}, {Name: "b"}}}}
	for _, c := range []struct {
		policy, scope, fail string
		want                []string
	}{
		{None, Container, "", []string{"i@0", "a@0", "b@0"}},
		{Restricted, Container, "", []string{"i@10", "a@10", "b@10"}},
		{Restricted, Pod, "", []string{"i@10", "a@10", "b@10"}},
		{Restricted, Container, "b", nil},
	} {
		p := &provider{hints: map[string][]Hint{"r": {{MaskOf(1), true}}}, fail: c.fail}
		m, err := New(Config{Policy: c.policy, Scope: c.scope, Nodes: []int{0, 1}})
		if err != nil {
			t.Fatal(err)
		}
		m.Providers = []Provider{p}
		if err := m.Admit(pod); (err != nil) != (c.fail != "") {
			t.Errorf("%+v: %v", c, err)
		}
		if !slices.Equal(p.allocated, c.want) {
			t.Errorf("%+v: allocated %q", c, p.allocated)
		}
	}
}

func TestMask(t *testing.T) {
	var all []Mask
	Each([]int{0, 2, 3}, func(m Mask) { all = append(all, m) })
	want := []Mask{MaskOf(0), MaskOf(2), MaskOf(3), MaskOf(0, 2), MaskOf(0, 3), MaskOf(2, 3), MaskOf(0, 2, 3)}
	if !slices.Equal(all, want) {
		t.Errorf("%v, want %v", all, want)
	}
	if m := MaskOf(3, 1); !slices.Equal(m.Nodes(), []int{1, 3}) || m.Has(2) || !m.Any([]int{2, 3}) || m.Any(nil) {
		t.Errorf("%v: %v", m, m.Nodes())
	}
}
