package clusterautoscaler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/nodegroup"
)

var ctx = context.Background()

// What becomes of machines that a pool is asked for.
const (
	registers = iota // a machine becomes a ready node after boot
	silent           // it runs, without becoming a node
	broken           // it cannot be made, and the pool says so
	lost             // the pool does not make it
)

// boot is how long a machine takes to register.
const boot = 30 * time.Second

// pool is a node group whose machines have a fate. It is a provider of itself.
type pool struct {
	client kubernetes.Interface
	id     string
	most   int
	fate   int
	linger bool // the Nodes of deleted machines stay

	mu       sync.Mutex
	refuse   error // of Increase
	asked    []time.Time
	target   int
	made     int
	machines []nodegroup.Instance
}

func (*pool) Name() string                  { return "test" }
func (*pool) Refresh(context.Context) error { return nil }
func (p *pool) Groups(context.Context) ([]nodegroup.Group, error) {
	return []nodegroup.Group{p}, nil
}

func (p *pool) GroupOf(_ context.Context, n *v1.Node) (string, error) {
	if strings.HasPrefix(n.Spec.ProviderID, "test://"+p.id) {
		return p.id, nil
	}
	return "", nil
}

func (p *pool) ID() string { return p.id }
func (*pool) Least() int   { return 0 }
func (p *pool) Most() int  { return p.most }

func (p *pool) Target(context.Context) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target, nil
}

func (p *pool) Increase(_ context.Context, n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, time.Now())
	if p.refuse != nil {
		return p.refuse
	}
	p.target += n
	for range n {
		name := fmt.Sprintf("%s-%d", p.id, p.made)
		p.made++
		machine := nodegroup.Instance{ID: "test://" + name, State: nodegroup.Creating}
		switch p.fate {
		case lost:
			continue
		case broken:
			machine.Failure = &nodegroup.Failure{Class: nodegroup.OutOfResources, Code: "QUOTA_EXCEEDED", Message: "no more of these"}
		case registers:
			time.AfterFunc(boot, func() { _, _ = p.client.CoreV1().Nodes().Create(ctx, p.node(name), metav1.CreateOptions{}) })
		}
		p.machines = append(p.machines, machine)
	}
	return nil
}

func (p *pool) Decrease(_ context.Context, n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.target-n < len(p.machines) {
		return errors.New("these machines are there")
	}
	p.target -= n
	return nil
}

func (p *pool) Delete(_ context.Context, nodes []*v1.Node) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		left := slices.DeleteFunc(p.machines, func(m nodegroup.Instance) bool { return m.ID == n.Spec.ProviderID })
		if len(left) == len(p.machines) {
			return fmt.Errorf("there is no machine %s", n.Spec.ProviderID)
		}
		p.machines = left
		p.target--
		if !p.linger {
			_ = p.client.CoreV1().Nodes().Delete(ctx, n.Name, metav1.DeleteOptions{})
		}
	}
	return nil
}

func (p *pool) Instances(context.Context) ([]nodegroup.Instance, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.machines), nil
}

func (p *pool) Template(context.Context) (*v1.Node, error) { return p.node("template"), nil }
func (*pool) Options(_ context.Context, d nodegroup.GroupOptions) (nodegroup.GroupOptions, error) {
	return d, nil
}

// node is a ready node with 4 CPUs.
func (p *pool) node(name string) *v1.Node {
	capacity := v1.ResourceList{v1.ResourceCPU: resource.MustParse("4"), v1.ResourceMemory: resource.MustParse("8Gi"), v1.ResourcePods: resource.MustParse("10")}
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelHostname: name}, CreationTimestamp: metav1.Now()}, Spec: v1.NodeSpec{ProviderID: "test://" + name},
		Status: v1.NodeStatus{Capacity: capacity, Allocatable: capacity, Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}}}
}

// increases returns how often the pool has been asked for machines.
func (p *pool) increases() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

// world is a cluster with the autoscaler, upstream's defaults and one pool.
type world struct {
	*controllertest.Cluster
	t    *testing.T
	pool *pool
}

func begin(t *testing.T, fate int) *world {
	p := &pool{id: "g", most: 6, fate: fate}
	c := controllertest.NewWith(t, func(c *controllers.Context) {
		c.NodeGroups, c.Autoscaling, p.client = p, nodegroup.DefaultOptions(), c.Clients("test")
	}, New)
	c.Advance(time.Second) // for the first look, at an empty cluster
	return &world{c, t, p}
}

// pend makes a pod of a ReplicaSet that finds no node.
func (w *world) pend(name, cpu string) *v1.Pod {
	w.t.Helper()
	p := pod("ns", func(p *v1.Pod) {
		p.Name, p.Labels = name, map[string]string{"app": name}
		p.Spec.Containers = []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}}}}
		p.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: v1.PodReasonUnschedulable}}
	})
	return controllertest.Must[*v1.Pod](w.t)(w.Client.CoreV1().Pods("ns").Create(ctx, p, metav1.CreateOptions{}))
}

// bind binds a pod, as the scheduler does.
func (w *world) bind(p *v1.Pod, node string) {
	w.t.Helper()
	p = p.DeepCopy()
	p.Spec.NodeName, p.Status.Conditions, p.ResourceVersion = node, nil, ""
	controllertest.Must[*v1.Pod](w.t)(w.Client.CoreV1().Pods("ns").Update(ctx, p, metav1.UpdateOptions{}))
}

// nodes returns the names of the nodes, each with the autoscaler's taints.
func (w *world) nodes() (out []string) {
	w.t.Helper()
	for _, n := range controllertest.Must[*v1.NodeList](w.t)(w.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})).Items {
		name := n.Name
		for _, t := range n.Spec.Taints {
			name += " " + t.Key + ":" + string(t.Effect)
		}
		out = append(out, name)
	}
	return out
}

func (w *world) wantNodes(want ...string) {
	w.t.Helper()
	if got := w.nodes(); !slices.Equal(got, want) {
		w.t.Errorf("nodes %q, want %q", got, want)
	}
}

// hasEvents fails the test where one of these events has not been recorded since the last
// call.
func (w *world) hasEvents(want ...string) {
	w.t.Helper()
	got := w.Events()
	for _, e := range want {
		if !slices.Contains(got, e) {
			w.t.Errorf("no event %q among %q", e, got)
		}
	}
}

// status returns the text of the status.
func (w *world) status() string {
	w.t.Helper()
	return controllertest.Must[*v1.ConfigMap](w.t)(w.Client.CoreV1().ConfigMaps("kube-system").Get(ctx, statusName, metav1.GetOptions{})).Data["status"]
}

func (w *world) statusHas(want ...string) {
	w.t.Helper()
	got := w.status()
	for _, s := range want {
		if !strings.Contains(got, s) {
			w.t.Errorf("the status lacks %q:\n%s", s, got)
		}
	}
}

func TestUpAndDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, registers)
		p := w.pend("p", "1")
		w.Advance(2 * time.Second)
		w.hasEvents("Normal TriggeredScaleUp pod triggered scale-up: [{g 0->1 (max: 6)}]",
			"Normal ScaledUpGroup Scale-up: setting group g size to 1 instead of 0 (max: 6)", "Normal ScaledUpGroup Scale-up: group g size set to 1 instead of 0 (max: 6)")
		w.Advance(12 * time.Second)
		w.statusHas("status: InProgress", "cloudProviderTarget: 1", "unregistered: 1", "autoscalerStatus: Running")
		w.Advance(boot)
		w.wantNodes("g-0")
		w.bind(p, "g-0")
		w.Advance(20 * time.Minute)
		w.statusHas("status: NoActivity", "ready: 1")
		if n := w.pool.increases(); n != 1 {
			t.Errorf("the pool was asked for nodes %d times", n)
		}
		// 1 of 4 CPUs is little, but there is no other node for the pod.
		w.wantNodes("g-0")
		w.Events()

		// Unneeded: the scheduler is to prefer others. Needed again: no more.
		begun := time.Now()
		if err := w.Client.CoreV1().Pods("ns").Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.Advance(11 * time.Second)
		w.wantNodes("g-0 DeletionCandidateOfClusterAutoscaler:PreferNoSchedule")
		w.statusHas("status: CandidatesPresent", "candidates: 1")
		p = w.pend("p", "3")
		w.Advance(time.Second)
		w.bind(p, "g-0")
		w.Advance(11 * time.Second)
		w.wantNodes("g-0")

		if err := w.Client.CoreV1().Pods("ns").Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.Advance(9 * time.Minute)
		w.wantNodes("g-0 DeletionCandidateOfClusterAutoscaler:PreferNoSchedule")
		w.Advance(90 * time.Second)
		w.wantNodes()
		w.hasEvents("Normal ScaleDown marked the node as toBeDeleted/unschedulable", `Normal ScaleDownEmpty Scale-down: removing empty node "g-0"`,
			"Normal ScaleDown nodes removed by cluster autoscaler", "Normal ScaleDownEmpty Scale-down: empty node g-0 removed")
		if took := time.Since(begun); took < 10*time.Minute {
			t.Errorf("removed after %v", took)
		}
	})
}

// TestStarting checks that a pod for which a node is on its way does not add another one
// while the scheduler may not use that node yet.
func TestStarting(t *testing.T) {
	for name, change := range map[string]func(*v1.Node){
		"tainted": func(n *v1.Node) {
			n.Spec.Taints = []v1.Taint{{Key: v1.TaintNodeNotReady, Effect: v1.TaintEffectNoSchedule}}
		},
		"without network": func(n *v1.Node) {
			n.Status.Conditions = append(n.Status.Conditions, v1.NodeCondition{Type: v1.NodeNetworkUnavailable, Status: v1.ConditionTrue})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, silent)
				p := w.pend("p", "1")
				w.Advance(boot)
				n := w.pool.node("g-0")
				change(n)
				nodes := w.Client.CoreV1().Nodes()
				controllertest.Must[*v1.Node](t)(nodes.Create(ctx, n, metav1.CreateOptions{}))
				w.Advance(5 * time.Minute)
				w.statusHas("status: InProgress", "notStarted: 1")
				controllertest.Must[*v1.Node](t)(nodes.Update(ctx, w.pool.node("g-0"), metav1.UpdateOptions{}))
				w.Advance(time.Minute)
				w.statusHas("status: NoActivity", "ready: 1")
				w.bind(p, "g-0")
				w.wantNodes("g-0")
				if n := w.pool.increases(); n != 1 {
					t.Errorf("the pool was asked for nodes %d times", n)
				}
			})
		})
	}
}

// TestDrain checks that a node is drained where the budgets allow it, and only then.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, registers)
		a, b := w.pend("a", "3"), w.pend("b", "1500m")
		w.Advance(time.Minute)
		w.wantNodes("g-0", "g-1")
		w.bind(a, "g-0")
		w.bind(b, "g-1")
		daemon := w.pend("d", "100m")
		daemon.OwnerReferences[0].Kind = "DaemonSet"
		w.bind(daemon, "g-1")
		budget := &policy.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "budget"}, Spec: policy.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "b"}}}}
		budgets := w.Client.PolicyV1().PodDisruptionBudgets("ns")
		controllertest.Must[*policy.PodDisruptionBudget](t)(budgets.Create(ctx, budget, metav1.CreateOptions{}))
		// Then there is room for it elsewhere.
		a.Spec.Containers[0].Resources.Requests[v1.ResourceCPU] = resource.MustParse("2500m")
		w.bind(a, "g-0")
		w.Advance(30 * time.Minute)
		w.wantNodes("g-0", "g-1")
		w.Events()

		budget.Status.DisruptionsAllowed = 1
		controllertest.Must[*policy.PodDisruptionBudget](t)(budgets.UpdateStatus(ctx, budget, metav1.UpdateOptions{}))
		w.Advance(11 * time.Second)
		w.wantNodes("g-0", "g-1 DeletionCandidateOfClusterAutoscaler:PreferNoSchedule")
		w.Advance(11 * time.Minute)
		w.wantNodes("g-0")
		w.hasEvents("Normal ScaleDown Scale-down: removing node g-1, utilization: {0.4 0 0 0 cpu 0.4}, pods to reschedule: b", "Normal ScaleDown deleting pod for node scale down",
			"Normal ScaleDown Scale-down: node g-1 removed with drain")
		if left := w.Pods("ns"); len(left) != 1 { // the DaemonSet's has been evicted too
			t.Errorf("pods that are left: %v", left)
		}
	})
}

func TestAnnotatedNodeStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, registers)
		w.pend("p", "1")
		w.Advance(time.Minute)
		n := controllertest.Must[*v1.Node](t)(w.Client.CoreV1().Nodes().Get(ctx, "g-0", metav1.GetOptions{}))
		n.Annotations = map[string]string{scaleDownDisabled: "true"}
		n = controllertest.Must[*v1.Node](t)(w.Client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{}))
		if err := w.Client.CoreV1().Pods("ns").Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.Advance(time.Hour)
		w.wantNodes("g-0")
		n.Annotations = nil
		controllertest.Must[*v1.Node](t)(w.Client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{}))
		w.Advance(11 * time.Minute)
		w.wantNodes()
	})
}

// TestUnregistered checks that machines are removed that do not become nodes, and that
// their group is left alone for a while.
func TestUnregistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, silent)
		w.pend("p", "1")
		w.Advance(14 * time.Minute)
		if len(w.pool.machines) != 1 || w.pool.increases() != 1 {
			t.Fatalf("%v, asked %d times", w.pool.machines, w.pool.increases())
		}
		w.Events()
		w.Advance(2 * time.Minute)
		if len(w.pool.machines) != 0 || w.pool.target != 0 {
			t.Errorf("machines %v, target %d", w.pool.machines, w.pool.target)
		}
		w.hasEvents("Warning ScaleUpTimedOut Nodes added to group g failed to register within 15m10s", "Normal DeleteUnregistered Removed unregistered node test://g-0",
			"Normal NotTriggerScaleUp pod didn't trigger scale-up: 1 in backoff after failed scale-up")
		w.statusHas("status: Backoff", "errorCode: timeout", "errorMessage: Scale-up timed out for node group g after 15m10s")
		w.pool.fate = registers
		w.Advance(5 * time.Minute)
		w.wantNodes("g-1")
	})
}

// TestNeverMade checks that a target which the provider does not reach is taken back.
func TestNeverMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, lost)
		w.pend("p", "1")
		w.Advance(16 * time.Minute)
		if w.pool.target != 0 {
			t.Errorf("target %d", w.pool.target)
		}
	})
}

// TestBroken checks that machines are removed which cannot be made.
func TestBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, broken)
		w.pend("p", "1")
		w.Advance(15 * time.Second)
		if len(w.pool.machines) != 0 || w.pool.target != 0 || w.pool.increases() != 1 {
			t.Errorf("machines %v, target %d, asked %d times", w.pool.machines, w.pool.target, w.pool.increases())
		}
		w.hasEvents("Warning ScaleUpFailed Failed adding 1 nodes to group g due to OutOfResource.QUOTA_EXCEEDED; source errors: no more of these")
		w.statusHas("status: Backoff", "errorCode: QUOTA_EXCEEDED", "errorMessage: no more of these")
	})
}

// TestRefused checks that a group which refuses to grow is asked less and less often.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, registers)
		w.pool.refuse = errors.New("the account is closed")
		w.pend("p", "1")
		w.Advance(time.Second)
		w.hasEvents("Warning FailedToScaleUpGroup Scale-up failed for group g: the account is closed", "Normal NotTriggerScaleUp pod didn't trigger scale-up: 1 in backoff after failed scale-up")
		w.Advance(2 * time.Hour)
		var waits []time.Duration
		for i := range w.pool.asked[1:] {
			waits = append(waits, w.pool.asked[i+1].Sub(w.pool.asked[i]).Truncate(time.Minute))
		}
		if want := []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, 30 * time.Minute}; !slices.Equal(waits, want) {
			t.Errorf("asked again after %v, want %v", waits, want)
		}
		w.pool.refuse = nil
		w.Advance(31 * time.Minute)
		w.wantNodes("g-0")
	})
}

// unready makes a node's kubelet fail.
func (w *world) unready(name string) {
	w.t.Helper()
	n := controllertest.Must[*v1.Node](w.t)(w.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}))
	n.Status.Conditions[0].Status = v1.ConditionUnknown
	controllertest.Must[*v1.Node](w.t)(w.Client.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}))
}

// TestUnready checks that nodes are removed which are no longer ready, and that nothing is
// done where they are many.
func TestUnready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, registers)
		var pods []*v1.Pod
		for i := range 6 {
			pods = append(pods, w.pend(fmt.Sprint("p", i), "3"))
		}
		w.Advance(time.Minute)
		for i, p := range pods {
			w.bind(p, fmt.Sprintf("g-%d", i))
		}
		w.Advance(16 * time.Minute) // they have had the time to start
		if err := w.Client.CoreV1().Pods("ns").Delete(ctx, "p0", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.unready("g-0")
		w.Advance(19 * time.Minute)
		w.statusHas("unready:\n          resourceUnready: 0\n          total: 1")
		if n := len(w.nodes()); n != 6 {
			t.Errorf("%d nodes", n)
		}
		w.Advance(2 * time.Minute)
		if n := len(w.nodes()); n != 5 {
			t.Errorf("%d nodes", n)
		}
		for i := 1; i < 5; i++ {
			w.unready(fmt.Sprintf("g-%d", i))
		}
		w.Events()
		w.pend("more", "3")
		asked := w.pool.increases()
		w.Advance(11 * time.Second)
		w.hasEvents("Warning ClusterUnhealthy Cluster is unhealthy")
		w.statusHas("status: Unhealthy")
		if w.pool.increases() != asked {
			t.Error("an unhealthy cluster grows")
		}
	})
}

// TestDaemons checks that the pods of DaemonSets count on nodes to come.
func TestDaemons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, registers)
		set := func(name string, selector map[string]string) {
			spec := v1.PodSpec{NodeSelector: selector, Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("2")}}}}}
			controllertest.Must[*apps.DaemonSet](t)(w.Client.AppsV1().DaemonSets("ns").Create(ctx, &apps.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: apps.DaemonSetSpec{Template: v1.PodTemplateSpec{Spec: spec}}}, metav1.CreateOptions{}))
		}
		set("everywhere", nil)
		set("elsewhere", map[string]string{"no": "where"})
		for i := range 4 { // without the set, one node has room for all
			w.pend(fmt.Sprint("p", i), "1")
		}
		w.Advance(2 * time.Second)
		if w.pool.target != 2 {
			t.Errorf("%d nodes are asked for, want 2", w.pool.target)
		}
	})
}

// TestLateBinding checks that an empty node stays to which a pod was being bound when it was
// tainted.
func TestLateBinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, registers)
		p := w.pend("p", "3")
		w.Advance(time.Minute)
		p.Name = "late"
		if err := w.Client.CoreV1().Pods("ns").Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		const tainted = "g-0 DeletionCandidateOfClusterAutoscaler:PreferNoSchedule ToBeDeletedByClusterAutoscaler:NoSchedule"
		for range 20 * 60 {
			if slices.Contains(w.nodes(), tainted) {
				break
			}
			w.Advance(time.Second)
		}
		w.wantNodes(tainted)
		w.Advance(2 * time.Second)
		p.Spec.NodeName, p.Status.Conditions, p.ResourceVersion, p.UID = "g-0", nil, "", ""
		controllertest.Must[*v1.Pod](t)(w.Client.CoreV1().Pods("ns").Create(ctx, p, metav1.CreateOptions{}))
		w.Advance(10 * time.Second)
		w.hasEvents(`Warning ScaleDownFailed failed to delete empty node: failed to delete empty node "g-0", new pods scheduled`)
		w.Advance(4 * time.Minute)
		w.wantNodes("g-0")
	})
}

// TestDeletedNode checks that a node which has been deleted does not count, though it is
// still shown: otherwise it would stand for one that is on its way.
func TestDeletedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, registers)
		w.pool.linger = true
		p := w.pend("p", "3")
		w.Advance(time.Minute)
		w.bind(p, "g-0")
		w.Advance(11 * time.Minute)
		if err := w.Client.CoreV1().Pods("ns").Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.Advance(11 * time.Minute)
		w.wantNodes("g-0 DeletionCandidateOfClusterAutoscaler:PreferNoSchedule ToBeDeletedByClusterAutoscaler:NoSchedule")
		if w.pool.target != 0 {
			t.Fatalf("the target is %d", w.pool.target)
		}
		w.pend("q", "3")
		w.Advance(25 * time.Second)
		if w.pool.target != 1 {
			t.Errorf("%d nodes are asked for, want 1", w.pool.target)
		}
	})
}

// TestRestart checks that taints are cleaned up which an earlier process has left.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, registers)
		w.Stop()
		n := w.pool.node("other")
		n.Spec.Taints = []v1.Taint{{Key: toBeDeleted, Effect: v1.TaintEffectNoSchedule}, {Key: "mine", Effect: v1.TaintEffectNoSchedule}}
		controllertest.Must[*v1.Node](t)(w.Client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}))
		w.Restart()
		w.Advance(time.Second)
		w.wantNodes("other mine:NoSchedule")
		w.hasEvents("Normal ClusterAutoscalerCleanup removed ToBeDeletedByClusterAutoscaler taints from node other")
	})
}

func TestPriorityConfigMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, registers)
		a := &autoscaler{client: w.Client, recorder: w.Context.Recorder(), warned: map[string]bool{}}
		of := func(id string) *option { return &option{group: &group{Group: named{id: id}}} }
		options := []*option{of("big"), of("small"), of("other")}
		for _, c := range []struct {
			data  map[string]string
			want  []string
			event string
		}{
			{map[string]string{"x": "y"}, []string{"big", "small", "other"}, "Warning PriorityConfigMapInvalid Wrong configmap for priority expander, doesn't contain priorities key. Ignoring update."},
			{map[string]string{"priorities": ""}, []string{"big", "small", "other"}, "Warning PriorityConfigMapInvalid Wrong configuration for priority expander: priority configuration in cluster-autoscaler-priority-expander configmap is empty; please provide valid configuration. Ignoring update."},
			{map[string]string{"priorities": "10: [big, small]\n5: [.*]\n"}, []string{"big", "small"}, ""},
			{map[string]string{"priorities": "10: [big, small]\n20: [small]\n"}, []string{"small"}, "Warning PriorityConfigMapNotMatchedGroup Priority expander: node group other not found in priority expander configuration. The group won't be used."},
			{map[string]string{"priorities": "10: [huge]\n"}, []string{"big", "small", "other"}, "Warning PriorityConfigMapNoGroupMatched Priority expander: no priorities info found for any of the expansion options. Falling back to random choice."},
		} {
			maps := w.Client.CoreV1().ConfigMaps("kube-system")
			_ = maps.Delete(ctx, priorities, metav1.DeleteOptions{})
			controllertest.Must[*v1.ConfigMap](t)(maps.Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: priorities}, Data: c.data}, metav1.CreateOptions{}))
			w.Events()
			for range 2 {
				var got []string
				for _, o := range a.byPriority(ctx, slices.Clone(options)) {
					got = append(got, o.group.ID())
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("%v: %q, want %q", c.data, got, c.want)
				}
			}
			n := 0
			for _, e := range w.Events() {
				if e == c.event {
					n++
				}
			}
			if want := min(len(c.event), 1); n != want {
				t.Errorf("%v: %d events %q, want %d", c.data, n, c.event, want)
			}
		}
	})
}
