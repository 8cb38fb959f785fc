package admission

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

// TestNodeRanges checks that a node does not choose the ranges of its pods, which the
// packets of all nodes go by.
func TestNodeRanges(t *testing.T) {
	node := func(ranges ...string) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: v1.NodeSpec{PodCIDRs: ranges}}
	}
	for _, c := range []struct {
		name    string
		old, is *v1.Node
		want    string // part of the error
	}{
		{"a new node", nil, node(), ""},
		{"a new node with a range", nil, node("10.0.0.0/24"), "not allowed to set spec.podCIDRs"},
		{"no change", node("10.0.0.0/24"), node("10.0.0.0/24"), ""},
		{"a first range", node(), node("10.0.0.0/24"), "not allowed to modify spec.podCIDRs"},
		{"another range", node("10.0.0.0/24"), node("10.0.1.0/24"), "not allowed to modify spec.podCIDRs"},
	} {
		op := admission.Update
		if c.old == nil {
			op = admission.Create
		}
		gvr := v1.SchemeGroupVersion.WithResource("nodes")
		a := admission.NewAttributesRecord(c.is, c.old, v1.SchemeGroupVersion.WithKind("Node"), "", "a", gvr, "", op, nil, false, nil)
		err := ownNode("a", a)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
