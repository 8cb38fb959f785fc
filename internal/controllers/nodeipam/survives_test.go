package nodeipam

import (
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that no two nodes ever have the same range, that a node keeps its
// own, and that each has one in the end, also those that had to wait for one.
func TestSurvives(t *testing.T) {
	node := func(name string) *v1.Node { return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	had := map[string]string{}
	controllertest.Trial{
		Seeds: 300, Controllers: []controllertest.Constructor{New},
		Context: func(c *controllers.Context) {
			c.PodRanges = []controllers.PodRange{{Cluster: netip.MustParsePrefix("10.0.0.0/22"), NodeBits: 24}}
		},
		World: []controllertest.Object{node("a"), node("b")},
		Actions: []controllertest.Action{
			controllertest.Creates(node("c"), node("d")),
			controllertest.Creates(node("e"), node("f")),
			controllertest.Then(controllertest.Removes[*v1.Node]("", "a"), controllertest.Creates(node("a"))),
			controllertest.Removes[*v1.Node]("", "b"),
			controllertest.Removes[*v1.Node]("", "c"),
		},
		Always: func(t *testing.T, c *controllertest.Cluster) {
			of := map[string]string{}
			for _, n := range controllertest.All[*v1.Node](c, "") {
				cidr := n.Spec.PodCIDR
				if cidr == "" {
					continue
				}
				if of[cidr] != "" {
					t.Errorf("%s and %s have %s", of[cidr], n.Name, cidr)
				}
				of[cidr] = n.Name
				if was := had[string(n.UID)]; was != "" && was != cidr {
					t.Errorf("%s had %s, and has %s", n.Name, was, cidr)
				}
				had[string(n.UID)] = cidr
			}
		},
		End: func(t *testing.T, c *controllertest.Cluster) {
			clear(had)
			for _, n := range controllertest.All[*v1.Node](c, "") {
				if n.Spec.PodCIDR == "" {
					t.Errorf("%s has no range", n.Name)
				}
			}
		},
	}.Survives(t)
}
