package sim

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestAddresses(t *testing.T) {
	var a addresses
	pod := func(uid string, ips ...v1.PodIP) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}, Spec: v1.PodSpec{NodeName: "n"}, Status: v1.PodStatus{PodIPs: ips}}
	}
	give := func(uid string, ranges ...string) []string {
		var out []string
		for _, ip := range a.give(pod(uid), ranges) {
			out = append(out, ip.IP)
		}
		return out
	}
	a.saw(pod("old", v1.PodIP{IP: "10.0.0.3"}))
	for _, c := range []struct {
		uid  string
		want []string
	}{{"a", []string{"10.0.0.2"}}, {"b", []string{"10.0.0.4"}}, {"c", []string{"10.0.0.5"}}, {"d", []string{"10.0.0.6"}}, {"e", []string{"10.0.0.7"}}, {"full", []string{"10.128.0.1"}}} {
		if got := give(c.uid, "10.0.0.0/29"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.uid, got, c.want)
		}
	}
	a.gone(pod("other", v1.PodIP{IP: "10.0.0.5"}))
	if got := give("f", "10.0.0.0/29"); got[0] != "10.128.0.2" {
		t.Errorf("the address of another pod was given back: %v", got)
	}
	a.gone(pod("c", v1.PodIP{IP: "10.0.0.5"}))
	if got := give("g", "10.0.0.0/29"); got[0] != "10.0.0.5" {
		t.Errorf("%v, want the one that was given back", got)
	}
	if got := give("two", "10.9.0.0/24", "fd00::/64"); !slices.Equal(got, []string{"10.9.0.2", "fd00::2"}) {
		t.Errorf("of both families: %v", got)
	}
	if got := give("none"); got[0] != "10.128.0.3" {
		t.Errorf("of a node without a range: %v", got)
	}
}
