package dash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
)

func controller(kind, name string, uid types.UID) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "x/v1", Kind: kind, Name: name, UID: uid, Controller: ptr.To(true)}}
}

func testNode(name string, change func(*v1.Node)) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("node-" + name)}}
	if change != nil {
		change(n)
	}
	return n
}

func testPod(namespace, name, on string, change func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + name)}, Spec: v1.PodSpec{NodeName: on}}
	if change != nil {
		change(p)
	}
	return p
}

// TestLines shows objects in all their states.
func TestLines(t *testing.T) {
	condition := func(typ v1.PodConditionType, status v1.ConditionStatus, reason string) v1.PodCondition {
		return v1.PodCondition{Type: typ, Status: status, Reason: reason}
	}
	waiting := func(restarts int32, reason string) v1.ContainerStatus {
		return v1.ContainerStatus{RestartCount: restarts, State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason}}}
	}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"a bare node", appendNode(nil, 1, testNode("n", nil), ""), `["node",1,"n",0,[0,0,0],""]`},
		{"a node", appendNode(nil, 70000, testNode("n", func(n *v1.Node) {
			n.Labels = map[string]string{v1.LabelTopologyZone: "zone-a"}
			n.Status.Allocatable = v1.ResourceList{"cpu": resource.MustParse("1900m"), "memory": resource.MustParse("1Gi"), "pods": resource.MustParse("110")}
			n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}, {Type: v1.NodeDiskPressure, Status: v1.ConditionFalse}}
		}), ""), `["node",70000,"n",1,[1900,1024,110],"zone-a"]`},
		{"a node in trouble", appendNode(nil, 1, testNode("n", func(n *v1.Node) {
			n.Spec.Unschedulable = true
			n.Status.NodeInfo.ContainerRuntimeVersion = "sim://1"
			n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionUnknown}, {Type: v1.NodeMemoryPressure, Status: v1.ConditionTrue}}
		}), ""), `["node",1,"n",14,[0,0,0],""]`},
		{"a node's label", appendNode(nil, 1, testNode("n", func(n *v1.Node) { n.Labels = map[string]string{"pool": "blue"} }), "pool"), `["node",1,"n",0,[0,0,0],"","blue"]`},
		{"a label that a node does not have", appendNode(nil, 1, testNode("n", nil), "pool"), `["node",1,"n",0,[0,0,0],"",""]`},
		{"the name of a node", appendNamedNode(nil, 3, "n"), `["node",3,"n",16,[0,0,0],""]`},
		{"an owner", appendOwner(nil, 2, &ident{kind: "Fun\"ny\u2028", namespace: "a", name: "b"}, 3, 1, 9), `["owner",2,"Fun\"ny\u2028","a","b",3,1,9]`},
		{"a pod that waits", appendPod(nil, 1, testPod("a", "p", "", func(p *v1.Pod) {
			p.Status.Phase = v1.PodPending
			p.Status.Conditions = []v1.PodCondition{condition(v1.PodScheduled, v1.ConditionFalse, v1.PodReasonUnschedulable)}
		}), 0, 0), `["pod",1,"a","p",0,0,8,0,0]`},
		{"a pod with a gate", appendPod(nil, 1, testPod("a", "p", "", func(p *v1.Pod) {
			p.Status.Conditions = []v1.PodCondition{condition(v1.PodScheduled, v1.ConditionFalse, v1.PodReasonSchedulingGated)}
		}), 0, 0), `["pod",1,"a","p",0,0,0,0,0]`},
		{"a pod that starts", appendPod(nil, 1, testPod("a", "p", "n", func(p *v1.Pod) {
			p.Status.Phase = v1.PodPending
			p.Status.ContainerStatuses = []v1.ContainerStatus{waiting(0, "ContainerCreating")}
		}), 4, 5), `["pod",1,"a","p",4,1,0,5,0]`},
		{"a pod that runs", appendPod(nil, 1, testPod("a", "p", "n", func(p *v1.Pod) {
			p.Status.Phase = v1.PodRunning
			p.Status.Conditions = []v1.PodCondition{condition(v1.PodReady, v1.ConditionTrue, "")}
		}), 4, 5), `["pod",1,"a","p",4,2,1,5,0]`},
		{"a pod that fails again and again, and is deleted", appendPod(nil, 1, testPod("a", "p", "n", func(p *v1.Pod) {
			p.Status.Phase = v1.PodRunning
			p.DeletionTimestamp = &metav1.Time{}
			p.Status.InitContainerStatuses = []v1.ContainerStatus{{RestartCount: 1}}
			p.Status.ContainerStatuses = []v1.ContainerStatus{waiting(7, "CrashLoopBackOff"), {RestartCount: 2}}
		}), 4, 5), `["pod",1,"a","p",4,2,6,5,10]`},
		{"a pod that is done", appendPod(nil, 1, testPod("a", "p", "n", func(p *v1.Pod) { p.Status.Phase = v1.PodSucceeded }), 4, 0), `["pod",1,"a","p",4,3,0,0,0]`},
		{"a pod that has failed", appendPod(nil, 1, testPod("a", "p", "n", func(p *v1.Pod) { p.Status.Phase = v1.PodFailed }), 4, 0), `["pod",1,"a","p",4,4,0,0,0]`},
		{"a pod of a lost node", appendPod(nil, 1, testPod("a", "p", "n", func(p *v1.Pod) { p.Status.Phase = v1.PodUnknown }), 4, 0), `["pod",1,"a","p",4,5,0,0,0]`},
		{"the end", appendGone(nil, "pod", 12), `["gone","pod",12]`},
	} {
		if got := string(c.got); got != c.want+"\n" {
			t.Errorf("%s: %s want %s", c.name, got, c.want)
		}
	}
}

// TestOwners shows pods of owners that the user may not list or that are no workloads, and
// drops what nothing refers to any more.
func TestOwners(t *testing.T) {
	w := newWorld(t)
	w.put(testPod("a", "p", "n", func(p *v1.Pod) { p.OwnerReferences = controller("Rollout", "r", "r") }))
	w.put(testPod("a", "q", "n", func(p *v1.Pod) { p.OwnerReferences = controller("ReplicaSet", "s", "s") }))
	w.put(testPod("a", "static", "m", func(p *v1.Pod) { p.OwnerReferences = controller("Node", "m", "m") }))
	var rights rights
	p := newPicture(rights.shown(t.Context(), w.cat))
	if err := p.load(t.Context(), w.store, 0); err != nil {
		t.Fatal(err)
	}
	watch, err := w.store.Watch(everything, store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	v := newView(t)
	check := func(want string) {
		t.Helper()
		v.read(string(p.drain(nil, 1<<20)))
		var got []string
		for _, what := range strings.Split(v.state(), "\n") {
			if what = strings.Trim(what, " {},"); what != "" {
				got = append(got, strings.ReplaceAll(what, `"`, ""))
			}
		}
		if s := strings.Join(got, "; "); s != want {
			t.Errorf("shown is\n%s\nwant\n%s", s, want)
		}
	}
	apply := func() {
		t.Helper()
		events, err := watch.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range events {
			p.apply(&events[i])
		}
	}
	pods := "pod a/p: n 0 0 Rollout/a/r 0; pod a/q: n 0 0 ReplicaSet/a/s 0; pod a/static: m 0 0 - 0"
	pods = strings.ReplaceAll(pods, "0 0 ", "1 0 ")
	check("node m: 16 [0 0 0] ; node n: 16 [0 0 0] ; owner ReplicaSet/a/s: 0 0 -; owner Rollout/a/r: 0 0 -; " + pods)
	w.put(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s", UID: "s", OwnerReferences: controller("Deployment", "d", "d")}, Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](3)}})
	apply()
	check("node m: 16 [0 0 0] ; node n: 16 [0 0 0] ; owner Deployment/a/d: 0 0 -; owner ReplicaSet/a/s: 3 0 Deployment/a/d; owner Rollout/a/r: 0 0 -; " + pods)
	w.put(testNode("n", nil))
	apply()
	w.remove(testPod("a", "p", "", nil))
	apply()
	w.remove(testPod("a", "static", "", nil))
	apply()
	check("node n: 0 [0 0 0] ; owner Deployment/a/d: 0 0 -; owner ReplicaSet/a/s: 3 0 Deployment/a/d; pod a/q: n 1 0 ReplicaSet/a/s 0")
	w.remove(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s"}})
	apply()
	w.remove(testNode("n", nil))
	apply()
	check("node n: 16 [0 0 0] ; owner ReplicaSet/a/s: 0 0 -; pod a/q: n 1 0 ReplicaSet/a/s 0")
	w.remove(testPod("a", "q", "", nil))
	apply()
	check("")
	if len(p.pods)+len(p.nodes)+len(p.owners) != 0 {
		t.Errorf("%d pods, %d nodes and %d owners are kept of nothing", len(p.pods), len(p.nodes), len(p.owners))
	}
}

// TestRandom makes random changes, which a client reads at random times and in random
// portions. What it has in the end is what one has that comes then.
func TestRandom(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test
			w := newWorld(t)
			change := func() {
				name := fmt.Sprint(rnd.IntN(8))
				switch set := string(rune('a' + rnd.IntN(4))); rnd.IntN(10) {
				case 0:
					w.put(testNode(name, func(n *v1.Node) { n.Spec.Unschedulable = rnd.IntN(2) == 0 }))
				case 1:
					w.remove(testNode(name, nil))
				case 2:
					// Among the parents are circles.
					w.put(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: set, UID: types.UID(set), OwnerReferences: controller("ReplicaSet", "a", "a")}})
				case 3:
					w.remove(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: set}})
				case 4:
					w.put(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: set, UID: types.UID("d" + set), OwnerReferences: controller("ReplicaSet", set, types.UID(set))},
						Status: appsv1.DeploymentStatus{ReadyReplicas: rnd.Int32N(3)}})
				case 5, 6:
					w.remove(testPod("x", name, "", nil))
				default:
					w.put(testPod("x", name, name[:rnd.IntN(2)], func(p *v1.Pod) {
						p.OwnerReferences = controller("ReplicaSet", set, types.UID(set))
						p.Status.ContainerStatuses = []v1.ContainerStatus{{RestartCount: rnd.Int32N(3)}}
					}))
				}
			}
			for range 50 {
				change()
			}
			begin := func() (*picture, *view) {
				var r rights
				p := newPicture(r.shown(t.Context(), w.cat))
				return p, newView(t)
			}
			p, v := begin()
			watch, err := w.store.Watch(everything, store.WatchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer watch.Stop()
			change() // between the watch and the lists
			change()
			if err := p.load(t.Context(), w.store, 0); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- p.follow(ctx, watch) }()
			for range 300 {
				change()
				if rnd.IntN(4) == 0 {
					synctest.Wait()
					v.read(string(p.drain(nil, rnd.IntN(1000))))
				}
			}
			synctest.Wait()
			v.read(string(p.drain(nil, 1<<20)))
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			q, want := begin()
			if err := q.load(t.Context(), w.store, 0); err != nil {
				t.Fatal(err)
			}
			want.read(string(q.drain(nil, 1<<20)))
			if v.state() != want.state() {
				t.Errorf("seed %d: a client that was there has\n%s\none that comes has\n%s", seed, v.state(), want.state())
			}
			if again := p.drain(nil, 1<<20); len(again) > 0 {
				t.Errorf("seed %d: what was sent is sent again: %s", seed, again)
			}
			for _, r := range p.pods {
				if r.entry != nil {
					t.Errorf("seed %d: what was sent is kept: %s", seed, r.key)
				}
			}
		})
	}
}

// TestActor names those who do steps.
func TestActor(t *testing.T) {
	for _, c := range []struct {
		step trace.Step
		want string
	}{
		{trace.Step{Actor: "system:node:node-1"}, "kubelet node-1"},
		{trace.Step{Actor: "system:kube-scheduler", Client: "keelson/v1"}, "scheduler"},
		{trace.Step{Actor: "system:apiserver"}, "apiserver"},
		{trace.Step{Actor: "deployment-controller"}, "deployment-controller"},
		{trace.Step{Actor: "kubernetes-admin", Client: "kubectl/v1.37.2 (linux/amd64) kubernetes/0"}, "kubectl"},
		{trace.Step{Actor: "system:serviceaccount:shop:operator", Client: "operator"}, "operator"},
		{trace.Step{Actor: "jane"}, "jane"},
	} {
		if got := actor(&c.step); got != c.want {
			t.Errorf("%s with %q is %s, want %s", c.step.Actor, c.step.Client, got, c.want)
		}
	}
}
