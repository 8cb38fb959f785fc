package daemonset

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

func newSet() *apps.DaemonSet {
	app := map[string]string{"app": "agent"}
	return &apps.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "agent"},
		Spec: apps.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "one"}}}},
			UpdateStrategy: apps.DaemonSetUpdateStrategy{Type: apps.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &apps.RollingUpdateDaemonSet{MaxUnavailable: ptr.To(intstr.FromInt32(1)), MaxSurge: ptr.To(intstr.FromInt32(0))}},
			RevisionHistoryLimit: ptr.To[int32](10),
		},
	}
}

type suite struct {
	*controllertest.Cluster
	t *testing.T
}

// run runs f on a cluster with some nodes called a, b, c.
func run(t *testing.T, nodes int, f func(s suite)) {
	synctest.Test(t, func(t *testing.T) {
		s := suite{controllertest.New(t, New), t}
		s.GracefulPods()
		for i := range nodes {
			s.node(string(rune('a' + i)))
		}
		f(s)
	})
}

func (s suite) node(name string, change ...func(*v1.Node)) {
	s.t.Helper()
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"node": name}}}
	for _, f := range change {
		f(n)
	}
	controllertest.Must[*v1.Node](s.t)(s.Client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}))
	synctest.Wait()
}

func (s suite) changeNode(name string, f func(*v1.Node)) {
	s.t.Helper()
	n := controllertest.Must[*v1.Node](s.t)(s.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}))
	f(n)
	controllertest.Must[*v1.Node](s.t)(s.Client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{}))
	synctest.Wait()
}

func (s suite) create(ds *apps.DaemonSet) {
	s.t.Helper()
	controllertest.Must[*apps.DaemonSet](s.t)(s.Client.AppsV1().DaemonSets("ns").Create(ctx, ds, metav1.CreateOptions{}))
	synctest.Wait()
}

func (s suite) get() *apps.DaemonSet {
	s.t.Helper()
	synctest.Wait()
	return controllertest.Must[*apps.DaemonSet](s.t)(s.Client.AppsV1().DaemonSets("ns").Get(ctx, "agent", metav1.GetOptions{}))
}

func (s suite) change(f func(*apps.DaemonSet)) {
	s.t.Helper()
	ds := s.get()
	f(ds)
	controllertest.Must[*apps.DaemonSet](s.t)(s.Client.AppsV1().DaemonSets("ns").Update(ctx, ds, metav1.UpdateOptions{}))
	synctest.Wait()
}

// pods returns the pods as "node image", with a "-" after those that are being
// deleted.
func (s suite) pods() string {
	s.t.Helper()
	var out []string
	for _, p := range s.Pods("ns") {
		line := nodeOf(&p) + " " + p.Spec.Containers[0].Image
		if p.DeletionTimestamp != nil {
			line += "-"
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (s suite) want(pods string) {
	s.t.Helper()
	if have := s.pods(); have != pods {
		s.t.Fatalf("pods are %q, want %q", have, pods)
	}
}

// on returns the pod on a node with that image.
func (s suite) on(node, image string) *v1.Pod {
	s.t.Helper()
	for _, p := range s.Pods("ns") {
		if nodeOf(&p) == node && p.Spec.Containers[0].Image == image {
			return &p
		}
	}
	s.t.Fatalf("no pod on %s with %s", node, image)
	return nil
}

func (s suite) end(p *v1.Pod) {
	s.t.Helper()
	if err := s.Client.CoreV1().Pods("ns").Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

func TestPlacement(t *testing.T) {
	run(t, 2, func(s suite) {
		s.create(newSet())
		s.want("a one, b one")
		p := s.on("a", "one")
		term := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0]
		if p.Spec.NodeName != "" || term.MatchFields[0].Key != "metadata.name" || len(p.Spec.Tolerations) != 6 || p.GenerateName != "agent-" {
			t.Errorf("the pod: %+v", p)
		}
		s.HasEvent("Normal SuccessfulCreate Created pod: " + p.Name)
		s.RunPods("ns", nil)
		st := s.get().Status
		if st.DesiredNumberScheduled != 2 || st.CurrentNumberScheduled != 2 || st.NumberReady != 2 || st.NumberAvailable != 2 || st.UpdatedNumberScheduled != 2 ||
			st.NumberUnavailable != 0 || st.NumberMisscheduled != 0 || st.ObservedGeneration != 1 {
			t.Errorf("status: %+v", st)
		}
		s.node("c")
		s.want("a one, b one, c one")
		// What it does not tolerate keeps pods from being made, or ends them.
		s.node("d", func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "x", Effect: v1.TaintEffectNoSchedule}} })
		s.node("e", func(n *v1.Node) {
			n.Spec.Taints = []v1.Taint{{Key: v1.TaintNodeNotReady, Effect: v1.TaintEffectNoExecute}}
		})
		s.changeNode("a", func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "x", Effect: v1.TaintEffectNoSchedule}} })
		s.changeNode("b", func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "x", Effect: v1.TaintEffectNoExecute}} })
		s.want("a one, b one-, c one, e one")
		if st := s.get().Status; st.DesiredNumberScheduled != 2 || st.NumberMisscheduled != 2 {
			t.Errorf("status with tainted nodes: %+v", st)
		}
		// A node that is no more leaves no pod that waits for it.
		if err := s.Client.CoreV1().Nodes().Delete(ctx, "e", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.want("a one, b one-, c one, e one-")
	})
}

func TestNodeSelector(t *testing.T) {
	run(t, 2, func(s suite) {
		ds := newSet()
		ds.Spec.Template.Spec.NodeSelector = map[string]string{"color": "blue"}
		s.create(ds)
		s.want("")
		s.changeNode("a", func(n *v1.Node) { n.Labels["color"] = "blue" })
		s.want("a one")
		s.changeNode("a", func(n *v1.Node) { n.Labels["color"] = "green" })
		s.want("a one-")
	})
}

// TestRollingUpdate checks that pods are replaced one at a time, and a rollback keeps
// those that have not been.
func TestRollingUpdate(t *testing.T) {
	run(t, 3, func(s suite) {
		s.create(newSet())
		s.RunPods("ns", nil)
		before := map[string]bool{}
		for _, p := range s.Pods("ns") {
			before[p.Name] = true
		}
		s.change(func(ds *apps.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "two" })
		s.want("a one-, b one, c one")
		s.end(s.on("a", "one"))
		s.want("a two, b one, c one") // not ready yet, so no further one is missed
		s.change(func(ds *apps.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "one" })
		s.RunPods("ns", nil)
		s.want("a one, b one, c one")
		kept := 0
		for _, p := range s.Pods("ns") {
			if before[p.Name] {
				kept++
			}
		}
		if kept != 2 {
			t.Errorf("%d pods are kept, want 2", kept)
		}
		s.change(func(ds *apps.DaemonSet) {
			ds.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromString("50%"))
			ds.Spec.Template.Spec.Containers[0].Image = "three"
		})
		s.want("a one-, b one-, c one")
		s.RunPods("ns", nil)
		s.want("a three, b three, c three")
		list := controllertest.Must[*apps.ControllerRevisionList](t)(s.Client.AppsV1().ControllerRevisions("ns").List(ctx, metav1.ListOptions{}))
		var numbers []int64
		for _, r := range list.Items {
			numbers = append(numbers, r.Revision)
		}
		slices.Sort(numbers)
		if !slices.Equal(numbers, []int64{2, 3, 4}) {
			t.Errorf("revisions are %v", numbers)
		}
	})
}

// TestSurge checks that the old pod goes when the new one is available.
func TestSurge(t *testing.T) {
	run(t, 3, func(s suite) {
		ds := newSet()
		ds.Spec.MinReadySeconds = 10
		ds.Spec.UpdateStrategy.RollingUpdate = &apps.RollingUpdateDaemonSet{MaxUnavailable: ptr.To(intstr.FromInt32(0)), MaxSurge: ptr.To(intstr.FromInt32(1))}
		s.create(ds)
		s.RunPods("ns", nil)
		s.Advance(time.Minute)
		s.change(func(ds *apps.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "two" })
		s.want("a one, a two, b one, c one")
		s.SetReady(s.on("a", "two"), true)
		s.Advance(5 * time.Second)
		s.want("a one, a two, b one, c one")
		s.Advance(6 * time.Second)
		s.want("a one-, a two, b one, b two, c one")
	})
}

func TestOnDelete(t *testing.T) {
	run(t, 2, func(s suite) {
		ds := newSet()
		ds.Spec.UpdateStrategy = apps.DaemonSetUpdateStrategy{Type: apps.OnDeleteDaemonSetStrategyType}
		s.create(ds)
		s.RunPods("ns", nil)
		s.change(func(ds *apps.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "two" })
		s.want("a one, b one")
		s.end(s.on("b", "one"))
		s.want("a one, b two")
		s.RunPods("ns", nil)
		if st := s.get().Status; st.UpdatedNumberScheduled != 1 || st.NumberAvailable != 2 {
			t.Errorf("status: %+v", st)
		}
	})
}

// TestFailedPods checks that each failure on a node doubles the wait until the
// failed pod is replaced.
func TestFailedPods(t *testing.T) {
	run(t, 1, func(s suite) {
		s.create(newSet())
		var waits []time.Duration
		for range 4 {
			p := s.on("a", "one")
			begin := time.Now()
			s.SetPhase(p, v1.PodFailed)
			for s.on("a", "one").DeletionTimestamp == nil {
				s.Advance(500 * time.Millisecond)
			}
			waits = append(waits, time.Since(begin))
			s.HasEvent(fmt.Sprintf("Warning FailedDaemonPod Found failed daemon pod ns/%s on node a, will try to kill it", p.Name))
			s.end(p)
		}
		if want := []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second}; !slices.Equal(waits, want) {
			t.Errorf("failed pods are replaced after %v, want %v", waits, want)
		}
		p := s.on("a", "one")
		s.SetPhase(p, v1.PodSucceeded)
		s.HasEvent(fmt.Sprintf("Normal SucceededDaemonPod Found succeeded daemon pod ns/%s on node a, will try to delete it", p.Name))
		s.want("a one-")
	})
}

// TestAdoption checks that a pod on a node that the set would have one on is
// adopted, and a second one deleted.
func TestAdoption(t *testing.T) {
	run(t, 2, func(s suite) {
		for i, name := range []string{"old", "young"} {
			s.Advance(time.Duration(i) * time.Minute)
			controllertest.Must[*v1.Pod](t)(s.Client.CoreV1().Pods("ns").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "agent"}},
				Spec: v1.PodSpec{NodeName: "a", Containers: []v1.Container{{Image: "x"}}}, Status: v1.PodStatus{Phase: v1.PodRunning}}, metav1.CreateOptions{}))
		}
		ds := newSet()
		ds.Spec.UpdateStrategy = apps.DaemonSetUpdateStrategy{Type: apps.OnDeleteDaemonSetStrategyType}
		s.create(ds)
		s.want("a x, a x-, b one")
		if p := controllertest.Must[*v1.Pod](t)(s.Client.CoreV1().Pods("ns").Get(ctx, "old", metav1.GetOptions{})); p.DeletionTimestamp != nil || len(p.OwnerReferences) != 1 {
			t.Errorf("the older pod: %+v", p.ObjectMeta)
		}
	})
}

func TestHistoryLimit(t *testing.T) {
	run(t, 1, func(s suite) {
		ds := newSet()
		ds.Spec.RevisionHistoryLimit = ptr.To[int32](2)
		s.create(ds)
		for i := range 6 {
			s.RunPods("ns", nil)
			s.change(func(ds *apps.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = fmt.Sprint(i) })
		}
		s.RunPods("ns", nil)
		if n := len(controllertest.Must[*apps.ControllerRevisionList](t)(s.Client.AppsV1().ControllerRevisions("ns").List(ctx, metav1.ListOptions{})).Items); n != 3 {
			t.Errorf("%d revisions, want the one in use and 2", n)
		}
	})
}

func TestSelectingAll(t *testing.T) {
	run(t, 1, func(s suite) {
		ds := newSet()
		ds.Spec.Selector = &metav1.LabelSelector{}
		s.create(ds)
		s.HasEvent("Warning SelectingAll This daemon set is selecting all pods. A non-empty selector is required.")
		s.want("")
	})
}
