package admission

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

// TestNodeRanges checks that a node does not choose the ranges of its pods, which the
// packets of all nodes go by, nor its external addresses, which Services have.
func TestNodeRanges(t *testing.T) {
	node := func(ranges ...string) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: v1.NodeSpec{PodCIDRs: ranges}}
	}
	at := func(addresses ...v1.NodeAddress) *v1.Node {
		n := node()
		n.Status.Addresses = addresses
		return n
	}
	internal, external, name := v1.NodeAddress{Type: v1.NodeInternalIP, Address: "192.0.2.1"}, v1.NodeAddress{Type: v1.NodeExternalIP, Address: "203.0.113.1"}, v1.NodeAddress{Type: v1.NodeExternalDNS, Address: "a.test"}
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
		{"a new node with addresses", nil, at(internal), ""},
		{"a new node with an external address", nil, at(internal, external), "not allowed to add an address of the type ExternalIP"},
		{"an external address", at(internal), at(internal, external), "not allowed to add an address of the type ExternalIP"},
		{"an external name", at(internal), at(name), "not allowed to add an address of the type ExternalDNS"},
		{"an external address in place of another's", at(external), at(v1.NodeAddress{Type: v1.NodeExternalIP, Address: "203.0.113.2"}), "not allowed to add an address of the type ExternalIP"},
		{"addresses of a cloud", at(external, name), at(external, name, internal), ""},
		{"addresses less", at(external, internal), at(internal), ""},
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
