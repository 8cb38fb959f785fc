package nodelifecycle

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

const gracePeriod = 50 * time.Second

// tuned changes the controller's configuration.
func tuned(change func(*controllers.NodeLifecycle)) func(*controllers.Context) {
	return func(c *controllers.Context) {
		t := controllers.DefaultTuning()
		change(&t.NodeLifecycle)
		c.Tuning = &t
	}
}

// agents renew the leases of nodes until the test ends.
func agents(names ...string) controllertest.Action {
	return func(c *controllertest.Cluster) {
		for _, name := range names {
			l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: v1.NamespaceNodeLease}, Spec: coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NowMicro())}}
			c.Put(l)
			go func() {
				for {
					select {
					case <-c.Done():
						return
					case <-time.After(10 * time.Second):
						controllertest.Edit(c, v1.NamespaceNodeLease, name, func(l *coordinationv1.Lease) { l.Spec.RenewTime = ptr.To(metav1.NowMicro()) })
					}
				}
			}()
		}
	}
}

// suite is a cluster in which the controller runs.
type suite struct {
	*controllertest.Cluster
	t *testing.T
}

func newNode(name string, conditions ...v1.NodeCondition) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Conditions: conditions}}
}

func state(t v1.NodeConditionType, s v1.ConditionStatus) v1.NodeCondition {
	return v1.NodeCondition{Type: t, Status: s, Reason: "Kubelet", LastHeartbeatTime: metav1.Now()}
}

func (s suite) create(n *v1.Node) {
	s.t.Helper()
	controllertest.Must[*v1.Node](s.t)(s.Client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}))
}

func (s suite) get(name string) *v1.Node {
	s.t.Helper()
	return controllertest.Must[*v1.Node](s.t)(s.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}))
}

func (s suite) change(name string, f func(*v1.Node)) {
	s.t.Helper()
	err := retry.OnError(retry.DefaultRetry, apierrors.IsConflict, func() error {
		n := s.get(name)
		f(n)
		_, err := s.Client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// renew renews the node's lease, as its agent does.
func (s suite) renew(name string) {
	s.t.Helper()
	leases := s.Client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	l, err := leases.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		l, err = leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: v1.NamespaceNodeLease}}, metav1.CreateOptions{})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	l.Spec.RenewTime = ptr.To(metav1.NowMicro())
	if _, err := leases.Update(ctx, l, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// taints describes a node's taints.
func taints(n *v1.Node) string {
	var out []string
	for _, t := range n.Spec.Taints {
		out = append(out, strings.TrimPrefix(t.Key, "node.kubernetes.io/")+":"+string(t.Effect))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestTaints compares the taints of nodes with what their conditions make.
func TestTaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := suite{controllertest.NewWith(t, tuned(func(n *controllers.NodeLifecycle) { n.EvictionRate = 100 }), New), t}
		for _, c := range []struct {
			name  string
			node  *v1.Node
			taint string
		}{
			{"ready", newNode("ready", state(v1.NodeReady, v1.ConditionTrue)), ""},
			{"not ready", newNode("unready", state(v1.NodeReady, v1.ConditionFalse)), "not-ready:NoExecute not-ready:NoSchedule"},
			{"unknown", newNode("unknown", state(v1.NodeReady, v1.ConditionUnknown)), "unreachable:NoExecute unreachable:NoSchedule"},
			{"pressure", newNode("pressed", state(v1.NodeReady, v1.ConditionTrue), state(v1.NodeMemoryPressure, v1.ConditionTrue), state(v1.NodeDiskPressure, v1.ConditionTrue), state(v1.NodePIDPressure, v1.ConditionFalse)),
				"disk-pressure:NoSchedule memory-pressure:NoSchedule"},
			{"no network", newNode("network", state(v1.NodeReady, v1.ConditionTrue), state(v1.NodeNetworkUnavailable, v1.ConditionTrue)), "network-unavailable:NoSchedule"},
		} {
			s.create(c.node)
			s.Advance(time.Second)
			if got := taints(s.get(c.node.Name)); got != c.taint {
				t.Errorf("%s: %q, want %q", c.name, got, c.taint)
			}
		}
		// Others' taints stay; its own go with what they were for.
		s.change("unready", func(n *v1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: "mine", Effect: v1.TaintEffectNoSchedule})
			n.Spec.Unschedulable = true
			n.Status.Conditions[0].Status = v1.ConditionTrue
		})
		s.Advance(time.Second)
		if got := taints(s.get("unready")); got != "mine:NoSchedule unschedulable:NoSchedule" {
			t.Errorf("ready again, and cordoned: %q", got)
		}
		s.change("unready", func(n *v1.Node) { n.Spec.Unschedulable = false })
		s.Advance(time.Second)
		if got := taints(s.get("unready")); got != "mine:NoSchedule" {
			t.Errorf("not cordoned any more: %q", got)
		}
	})
}

// TestSilence checks that a node whose agent has fallen silent is unknown after the
// grace period, its pods are not ready, and it is as before when the agent speaks
// again.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := suite{controllertest.New(t, New), t}
		s.create(newNode("n", state(v1.NodeReady, v1.ConditionTrue), state(v1.NodeMemoryPressure, v1.ConditionFalse)))
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"}, Spec: v1.PodSpec{NodeName: "n"}}
		s.SetReady(controllertest.Must[*v1.Pod](t)(s.Client.CoreV1().Pods("ns").Create(ctx, pod, metav1.CreateOptions{})), true)
		for range 20 { // only its lease is renewed
			s.renew("n")
			s.Advance(10 * time.Second)
		}
		if n := s.get("n"); condition(n, v1.NodeReady).Status != v1.ConditionTrue || taints(n) != "" {
			t.Fatalf("while its lease is renewed: %+v", n)
		}
		s.Advance(gracePeriod - 15*time.Second)
		if condition(s.get("n"), v1.NodeReady).Status != v1.ConditionTrue {
			t.Fatal("unknown within the grace period")
		}
		s.Events()
		s.Advance(15 * time.Second)
		n := s.get("n")
		for _, c := range []struct {
			t      v1.NodeConditionType
			reason string
		}{{v1.NodeReady, "NodeStatusUnknown"}, {v1.NodeMemoryPressure, "NodeStatusUnknown"}, {v1.NodeDiskPressure, "NodeStatusNeverUpdated"}, {v1.NodePIDPressure, "NodeStatusNeverUpdated"}} {
			if got := condition(n, c.t); got == nil || got.Status != v1.ConditionUnknown || got.Reason != c.reason {
				t.Errorf("%s is %+v, want Unknown for %s", c.t, got, c.reason)
			}
		}
		if got := taints(n); got != "unreachable:NoExecute unreachable:NoSchedule" {
			t.Errorf("the taints are %q", got)
		}
		if i := slices.IndexFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Effect == v1.TaintEffectNoExecute }); n.Spec.Taints[i].TimeAdded == nil {
			t.Error("the taint does not say since when")
		}
		events := strings.Join(s.Events(), "; ")
		for _, want := range []string{"Normal NodeNotReady Node n status is now: NodeNotReady", "Warning NodeNotReady Node is not ready"} {
			if !strings.Contains(events, want) {
				t.Errorf("events %q, want %q", events, want)
			}
		}
		if p := s.Pods("ns")[0]; controllers.PodReady(&p) {
			t.Error("its pod is ready")
		}
		s.renew("n")
		s.change("n", func(n *v1.Node) {
			n.Status.Conditions = []v1.NodeCondition{state(v1.NodeReady, v1.ConditionTrue)}
		})
		s.Advance(time.Second)
		if got := taints(s.get("n")); got != "" {
			t.Errorf("after it is back the taints are %q", got)
		}
	})
}

// TestStartup checks that a node that has never posted its status has longer.
func TestStartup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := suite{controllertest.New(t, New), t}
		s.create(newNode("n"))
		s.HasEvent("Normal RegisteredNode Node n event: Registered Node n in Controller")
		s.Advance(59 * time.Second)
		if n := s.get("n"); len(n.Status.Conditions) > 0 {
			t.Errorf("within the grace period: %+v", n.Status.Conditions)
		}
		s.Advance(7 * time.Second)
		n := s.get("n")
		for _, c := range []v1.NodeConditionType{v1.NodeReady, v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
			if got := condition(n, c); got == nil || got.Status != v1.ConditionUnknown || got.Reason != "NodeStatusNeverUpdated" || got.Message != "Kubelet never posted node status." {
				t.Errorf("%s is %+v", c, got)
			}
		}
		if got := taints(n); got != "unreachable:NoSchedule" { // it is the only one
			t.Errorf("the taints are %q", got)
		}
	})
}

// TestDisruption checks that of several nodes that fail one after the other gets the taint
// that evicts its pods, that none has it while no node is ready, and that all is as before
// when one is ready again.
func TestDisruption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := suite{controllertest.New(t, New), t}
		for _, name := range []string{"a", "b", "c", "d"} {
			s.create(newNode(name, state(v1.NodeReady, v1.ConditionTrue)))
		}
		agents("a", "b", "c", "d")(s.Cluster)
		ready := func(status v1.ConditionStatus, names ...string) {
			for _, name := range names {
				s.change(name, func(n *v1.Node) { n.Status.Conditions = []v1.NodeCondition{state(v1.NodeReady, status)} })
			}
			s.Advance(6 * time.Second)
		}
		evicting := func() (n int) {
			for _, name := range []string{"a", "b", "c", "d"} {
				if strings.Contains(taints(s.get(name)), "not-ready:NoExecute") {
					n++
				}
			}
			return n
		}
		want := func(when string, n int) {
			t.Helper()
			if got := evicting(); got != n {
				t.Errorf("%s: %d nodes evict, want %d", when, got, n)
			}
		}
		s.Advance(6 * time.Second)
		ready(v1.ConditionFalse, "a", "b")
		want("two fail", 1)
		s.Advance(6 * time.Second)
		want("after ten seconds", 2)
		ready(v1.ConditionFalse, "c", "d")
		want("none is ready", 0)
		s.Advance(10 * time.Minute)
		want("long after", 0)
		ready(v1.ConditionTrue, "a")
		// Three of four are not ready: that is a partial disruption of a small zone.
		s.Advance(10 * time.Minute)
		want("one of four is ready", 0)
		ready(v1.ConditionTrue, "b")
		s.Advance(time.Minute)
		want("two of four are ready", 2)
		ready(v1.ConditionTrue, "c", "d")
		want("all are ready", 0)
	})
}

// TestSurvives checks that whatever goes wrong on the way, silent nodes are tainted and
// others not.
func TestSurvives(t *testing.T) {
	controllertest.Trial{
		Seeds: 100, Controllers: []controllertest.Constructor{New}, Rest: 2 * time.Minute,
		Actions: []controllertest.Action{
			agents("c", "d"),
			func(c *controllertest.Cluster) {
				for name, ready := range map[string]v1.ConditionStatus{"a": v1.ConditionFalse, "b": v1.ConditionTrue, "c": v1.ConditionTrue, "d": v1.ConditionTrue} {
					c.Put(newNode(name, state(v1.NodeReady, ready)))
				}
			},
			controllertest.Edits("", "a", func(n *v1.Node) { n.Spec.Unschedulable = true }),
		},
		End: controllertest.Are("", func(n *v1.Node) string { return n.Name + " " + taints(n) },
			"a unreachable:NoExecute unreachable:NoSchedule unschedulable:NoSchedule", "b unreachable:NoExecute unreachable:NoSchedule", "c ", "d "),
	}.Survives(t)
}
