package nodelifecycle

import (
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
)

// TestPace checks the states of zones, and how fast their nodes are tainted.
func TestPace(t *testing.T) {
	z := zones{NodeLifecycle: controllers.DefaultTuning().NodeLifecycle}
	for _, c := range []struct {
		health health
		state  disruption
		pace   float32
	}{
		{health{}, normal, 0.1},
		{health{ready: 1}, normal, 0.1},
		{health{unready: 1}, full, 0.1},
		{health{ready: 1, unready: 2}, normal, 0.1}, // three at least
		{health{ready: 1, unready: 3}, partial, 0},
		{health{ready: 9, unready: 11}, partial, 0}, // 55 %
		{health{ready: 10, unready: 12}, normal, 0.1},
		{health{ready: 22, unready: 28}, partial, 0},
		{health{ready: 22, unready: 29}, partial, 0.01},
		{health{ready: 40, unready: 40}, normal, 0.1},
	} {
		s := z.judge(c.health)
		if p := z.pace(s, c.health); s != c.state || p != c.pace {
			t.Errorf("%+v is %s with %v taints a second, want %s with %v", c.health, s, p, c.state, c.pace)
		}
	}
}

func inZone(name, zone string, ready bool) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelTopologyZone: zone}}}
	if ready {
		n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}
	}
	return n
}

// TestTurns checks the order of a zone's nodes, and that zones do not wait for one another.
func TestTurns(t *testing.T) {
	z := zones{NodeLifecycle: controllers.DefaultTuning().NodeLifecycle, m: map[string]*zone{}}
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	turn := func(name, zone string, at time.Duration, want string) {
		t.Helper()
		ok, wait := z.turn(inZone(name, zone, false), start.Add(at))
		if got := fmt.Sprint(ok, " ", wait); got != want {
			t.Errorf("%s at %s: %s, want %s", name, at, got, want)
		}
	}
	turn("a", "x", 0, "false 0s") // the zones have not been looked at
	all := []*v1.Node{inZone("r", "x", true), inZone("a", "x", false), inZone("b", "x", false), inZone("c", "y", false)}
	if c := z.look(counted(all)); len(c.wake) != 1 || c.wake[0] != "a" || c.stopped || c.resumed {
		t.Errorf("the first look: %+v", c)
	}
	turn("a", "x", 0, "true 0s")
	turn("b", "x", time.Second, "false 9s")
	turn("d", "x", time.Second, "false 19s")
	turn("c", "y", time.Second, "true 0s") // one of another zone
	z.leave("b")
	turn("d", "x", 5*time.Second, "false 5s")
	turn("d", "x", 10*time.Second, "true 0s")
	// No node is ready any more.
	all[0].Status.Conditions = nil
	if c := z.look(counted(all)); !c.stopped || !z.stopped() {
		t.Errorf("without a ready node: %+v", c)
	}
	turn("b", "x", time.Hour, "false 0s")
	if c := z.look(counted(all)); c.stopped || c.resumed {
		t.Errorf("still without one: %+v", c)
	}
	all[0] = inZone("r", "x", true)
	if c := z.look(counted(all)); !c.resumed || len(c.wake) != 1 || z.stopped() {
		t.Errorf("with one again: %+v", c)
	}
	turn("b", "x", time.Hour, "true 0s")
	// A node that does not count.
	all[1].Labels[excluded] = ""
	if h := counted(all)[":\x00:x"]; h != (health{1, 1}) {
		t.Errorf("the zone's health is %+v", h)
	}
}
