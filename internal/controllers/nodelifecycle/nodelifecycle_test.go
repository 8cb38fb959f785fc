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
	"keelson.dev/keelson/internal/reconcile"
)

var ctx = context.Background()

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
		s := suite{controllertest.New(t, New), t}
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

// TestSurvives checks that whatever goes wrong on the way, silent nodes are tainted and
// others not.
func TestSurvives(t *testing.T) {
	controllertest.Survives(t, 30, []func(controllers.Context) (reconcile.Run, error){New}, []func(*controllertest.Cluster){
		func(c *controllertest.Cluster) {
			s := suite{c, t}
			s.create(newNode("a", state(v1.NodeReady, v1.ConditionFalse)))
			s.create(newNode("b", state(v1.NodeReady, v1.ConditionTrue)))
		},
		func(c *controllertest.Cluster) {
			suite{c, t}.change("a", func(n *v1.Node) { n.Spec.Unschedulable = true })
		},
	}, func(t *testing.T, c *controllertest.Cluster) {
		s := suite{c, t}
		if got := taints(s.get("a")); got != "unreachable:NoExecute unreachable:NoSchedule unschedulable:NoSchedule" {
			t.Errorf("a has %q", got)
		}
		if got := taints(s.get("b")); got != "unreachable:NoExecute unreachable:NoSchedule" {
			t.Errorf("b has %q", got)
		}
	})
}
