package scheduler

import (
	"errors"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	policylisters "k8s.io/client-go/listers/policy/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

func priority(n int32, more ...func(*v1.Pod)) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Priority = &n
		for _, f := range more {
			f(p)
		}
	}
}

func budget(app string, allowed int32) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: app, Namespace: "default"},
		Spec:   policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
		Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed}}
}

func app(name string) func(*v1.Pod) { return func(p *v1.Pod) { p.Labels["app"] = name } }

func TestPreempt(t *testing.T) {
	nodes := []*v1.Node{node("a", nil), node("b", nil)}
	dying := func(p *v1.Pod) {
		p.DeletionTimestamp = &metav1.Time{}
		p.Status.Conditions = []v1.PodCondition{{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonPreemptionByScheduler}}
	}
	for _, c := range []struct {
		name    string
		placed  []*v1.Pod
		budgets []any
		pod     *v1.Pod
		node    string
		victims []string
		message string
	}{
		{"the lowest priority", []*v1.Pod{pod("x", on("a", priority(2, cpu("2")))), pod("y", on("b", priority(1, cpu("2"))))}, nil, pod("p", priority(5, cpu("1"))), "b", []string{"y"},
			"0/2 nodes are available: 2 Insufficient cpu."},
		{"no more than must be", []*v1.Pod{pod("x", on("a", priority(9, cpu("2")))), pod("y", on("b", priority(1, cpu("1")))), pod("z", on("b", priority(2, cpu("1"))))}, nil, pod("p", priority(5, cpu("1"))), "b", []string{"y"},
			"0/2 nodes are available: 2 Insufficient cpu."},
		{"the fewest", []*v1.Pod{pod("x", on("a", priority(1, cpu("1")))), pod("y", on("a", priority(1, cpu("1")))), pod("z", on("b", priority(1, cpu("2"))))}, nil, pod("p", priority(5, cpu("2"))), "b", []string{"z"},
			"0/2 nodes are available: 2 Insufficient cpu."},
		{"not against a budget", []*v1.Pod{pod("x", on("a", priority(2, cpu("2"), app("free")))), pod("y", on("b", priority(1, cpu("2"), app("kept"))))}, []any{budget("kept", 0)}, pod("p", priority(5, cpu("1"))), "a", []string{"x"},
			"0/2 nodes are available: 2 Insufficient cpu."},
		{"against a budget if there is no other way", []*v1.Pod{pod("x", on("a", priority(9, cpu("2")))), pod("y", on("b", priority(1, cpu("2"), app("kept"))))}, []any{budget("kept", 0)}, pod("p", priority(5, cpu("1"))), "b", []string{"y"},
			"0/2 nodes are available: 2 Insufficient cpu."},
		{"nobody of lower priority", []*v1.Pod{pod("x", on("a", priority(5, cpu("2")))), pod("y", on("b", priority(9, cpu("2"))))}, nil, pod("p", priority(5, cpu("1"))), "", nil,
			"0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."},
		{"hopeless", nil, nil, pod("p", priority(5, cpu("3"))), "", nil,
			"0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."},
		{"never", []*v1.Pod{pod("x", on("a", priority(1, cpu("2")))), pod("y", on("b", priority(1, cpu("2"))))}, nil, pod("p", priority(5, cpu("1"), func(p *v1.Pod) { p.Spec.PreemptionPolicy = ptr.To(v1.PreemptNever) })), "", nil,
			"0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never."},
		{"victims are ending", []*v1.Pod{pod("x", on("a", priority(1, cpu("2"), dying))), pod("y", on("b", priority(9, cpu("2"))))}, nil, pod("p", priority(5, cpu("1"), func(p *v1.Pod) { p.Status.NominatedNodeName = "a" })), "", nil,
			"0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to a terminating pod on the nominated node."},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := scheduler(t, nodes, c.placed...)
			s.Rand = func(int) int { return 0 }
			s.budgets = budgets(t, c.budgets)
			a := &attempt{pod: c.pod, state: fw.NewCycleState()}
			_, err := s.place(t.Context(), a.state, c.pod)
			f := s.afterFailure(t.Context(), a, err)
			if f == nil {
				t.Fatal("the pod fits")
			}
			var victims []string
			node := ""
			if f.victims != nil {
				node = f.victims.node
				for _, v := range f.victims.victims {
					victims = append(victims, v.Name)
				}
			}
			if node != c.node || !slices.Equal(victims, c.victims) || f.err.Error() != c.message {
				t.Errorf("node %q, victims %v, %q", node, victims, f.err)
			}
			if got := s.nominated.nodeOf[c.pod.UID]; got != c.node {
				t.Errorf("nominated: %q", got)
			}
		})
	}
}

// TestPreemptClaim checks that a pod goes before another one of lower priority, on
// whichever node that is, that has its ReadWriteOncePod claim.
func TestPreemptClaim(t *testing.T) {
	uses := func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
	}
	for _, c := range []struct {
		name     string
		priority int32
		victim   string
	}{{"lower", 1, "x"}, {"the same", 5, ""}} {
		client := fake.NewClientset()
		f := informers.NewSharedInformerFactory(client, 0)
		s, err := New(client, f, Options{Rand: func(int) int { return 0 }})
		if err != nil {
			t.Fatal(err)
		}
		s.budgets = budgets(t, nil)
		for _, n := range []string{"a", "b"} {
			s.snapshot.setNode(node(n, nil))
		}
		claim := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "c"}, Spec: v1.PersistentVolumeClaimSpec{VolumeName: "pv", AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}},
			Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound}}
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, "pv.kubernetes.io/bind-completed", "yes")
		pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: v1.PersistentVolumeSpec{AccessModes: claim.Spec.AccessModes, ClaimRef: &v1.ObjectReference{Namespace: "default", Name: "c", UID: "c"}}}
		if err := errors.Join(f.Core().V1().PersistentVolumeClaims().Informer().GetIndexer().Add(claim), f.Core().V1().PersistentVolumes().Informer().GetIndexer().Add(pv)); err != nil {
			t.Fatal(err)
		}
		s.snapshot.place(pod("x", on("a", priority(c.priority, uses))), "a")
		a := &attempt{pod: pod("p", priority(5, uses)), state: fw.NewCycleState()}
		_, err = s.place(t.Context(), a.state, a.pod)
		fail := s.afterFailure(t.Context(), a, err)
		if fail == nil || !strings.HasPrefix(fail.err.Error(), "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.") {
			t.Fatalf("%s: %v", c.name, fail)
		}
		victim := ""
		if fail.victims != nil && len(fail.victims.victims) == 1 {
			victim = fail.victims.victims[0].Name
		}
		if victim != c.victim {
			t.Errorf("%s: victim %q, want %q (%v)", c.name, victim, c.victim, fail.err)
		}
	}
}

func budgets(t *testing.T, list []any) policylisters.PodDisruptionBudgetLister {
	t.Helper()
	i := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for _, b := range list {
		if err := i.Add(b); err != nil {
			t.Fatal(err)
		}
	}
	return policylisters.NewPodDisruptionBudgetLister(i)
}

// TestNominatedRoom checks that the room that a pod waits for is not given to
// one that does not go before it.
func TestNominatedRoom(t *testing.T) {
	for _, c := range []struct {
		priority int32
		fits     bool
	}{{1, false}, {5, false}, {6, true}} {
		s := scheduler(t, []*v1.Node{node("a", nil)})
		s.nominated.set(pod("waiting", priority(5, cpu("2"))), "a")
		_, err := s.place(t.Context(), fw.NewCycleState(), pod("p", priority(c.priority, cpu("1"))))
		if (err == nil) != c.fits {
			t.Errorf("priority %d: %v", c.priority, err)
		}
	}
}

// TestMessage checks the message of upstream's documentation.
func TestMessage(t *testing.T) {
	tainted := func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoSchedule}} }
	small := func(n *v1.Node) { n.Status.Allocatable[v1.ResourceCPU] = resource.MustParse("100m") }
	s := scheduler(t, []*v1.Node{node("a", tainted), node("b", small), node("c", small)})
	a := &attempt{pod: pod("p", cpu("1")), state: fw.NewCycleState()}
	_, err := s.place(t.Context(), a.state, a.pod)
	got := s.afterFailure(t.Context(), a, err).err.Error()
	want := "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
