package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

const (
	limitRange = "[sig-scheduling] LimitRange should "
	predicates = "[sig-scheduling] SchedulerPredicates validates that "
	preemption = "[sig-scheduling] SchedulerPreemption "
	// foo is an extended resource that only these tests add to nodes and request.
	foo = v1.ResourceName("scheduling.k8s.io/foo")
)

// simple returns a pod that change changes.
func (t *T) simple(name string, change func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: t.NS}, Spec: v1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](0),
		Containers: []v1.Container{{Name: "c", Image: "keelson.local/pause"}}}}
	if change != nil {
		change(p)
	}
	return p
}

func (t *T) createPod(p *v1.Pod) *v1.Pod {
	t.Helper()
	return got[*v1.Pod](t)(t.Client.CoreV1().Pods(p.Namespace).Create(t.Context(), p, create))
}

// placedOn waits until a pod is bound, and returns the name of its node.
func (t *T) placedOn(p *v1.Pod) (node string) {
	t.Helper()
	t.until(p.Name+" to have a node", func(ctx context.Context) (bool, error) {
		now, err := t.Client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, get)
		if err == nil {
			node = now.Spec.NodeName
		}
		return node != "", err
	})
	return node
}

// fitsNowhere waits until the scheduler has found no node for a pod.
func (t *T) fitsNowhere(p *v1.Pod) {
	t.Helper()
	t.until(p.Name+" to be unschedulable", func(ctx context.Context) (bool, error) {
		now, err := t.Client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, get)
		return err == nil && now.Spec.NodeName == "" && slices.ContainsFunc(now.Status.Conditions, func(c v1.PodCondition) bool {
			return c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse && c.Reason == v1.PodReasonUnschedulable
		}), err
	})
}

// takers returns the schedulable nodes without taints.
func (t *T) takers() (out []v1.Node) {
	t.Helper()
	for _, n := range got[*v1.NodeList](t)(t.Client.CoreV1().Nodes().List(t.Context(), all)).Items {
		if !n.Spec.Unschedulable && len(n.Spec.Taints) == 0 {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		t.Fatal("no node takes pods")
	}
	return out
}

// label sets a label of a node until the test ends.
func (t *T) label(node, key, value string) {
	t.Helper()
	set := func(ctx context.Context, value any) error {
		_, err := t.Client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patchOf(dict{"metadata": dict{"labels": dict{key: value}}}), metav1.PatchOptions{})
		return err
	}
	t.must(set(t.Context(), value))
	t.Cleanup(func() {
		if err := set(context.WithoutCancel(t.Context()), nil); err != nil {
			t.Error(err)
		}
	})
}

// stock adds amount of foo to a node's capacity until the test ends.
func (t *T) stock(node, amount string) {
	t.Helper()
	set := func(ctx context.Context, amount any) error {
		status := dict{"status": dict{"capacity": dict{string(foo): amount}, "allocatable": dict{string(foo): amount}}}
		_, err := t.Client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patchOf(status), metav1.PatchOptions{}, "status")
		return err
	}
	t.must(set(t.Context(), amount))
	t.Cleanup(func() {
		if err := set(context.WithoutCancel(t.Context()), nil); err != nil {
			t.Error(err)
		}
	})
}

// rank makes a priority class until the test ends, and returns its name.
func (t *T) rank(value int32) string {
	t.Helper()
	name := fmt.Sprintf("%s-%d", t.NS, value)
	classes := t.Client.SchedulingV1().PriorityClasses()
	got[*schedulingv1.PriorityClass](t)(classes.Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}, create))
	t.Cleanup(func() {
		if err := classes.Delete(context.WithoutCancel(t.Context()), name, remove); err != nil {
			t.Error(err)
		}
	})
	return name
}

// wants makes a pod request amount of foo, with a priority class.
func wants(amount, class string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.PriorityClassName = class
		p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: amounts(string(foo), amount), Limits: amounts(string(foo), amount)}
	}
}

var _ = It(limitRange+"create a LimitRange with defaults and ensure pod has those defaults applied.", func(t *T) {
	ranges := t.Client.CoreV1().LimitRanges(t.NS)
	w := got[watch.Interface](t)(ranges.Watch(t.Context(), all))
	defer w.Stop()
	item := v1.LimitRangeItem{
		Type: v1.LimitTypeContainer,
		Min:  amounts("cpu", "50m", "memory", "100Mi", "ephemeral-storage", "100Gi"), Max: amounts("cpu", "500m", "memory", "500Mi", "ephemeral-storage", "500Gi"),
		DefaultRequest: amounts("cpu", "100m", "memory", "200Mi", "ephemeral-storage", "200Gi"), Default: amounts("cpu", "500m", "memory", "500Mi", "ephemeral-storage", "500Gi"),
	}
	made := got[*v1.LimitRange](t)(ranges.Create(t.Context(), &v1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "limits"}, Spec: v1.LimitRangeSpec{Limits: []v1.LimitRangeItem{item}}}, create))
	t.event(w, watch.Added, func(o runtime.Object) bool { return o.(*v1.LimitRange).UID == made.UID })
	has := func(p *v1.Pod, requests, limits v1.ResourceList) {
		t.Helper()
		r := p.Spec.Containers[0].Resources
		for name, q := range requests {
			if have := r.Requests[name]; have.Cmp(q) != 0 {
				t.Errorf("%s requests %s of %s, want %s", p.Name, have.String(), name, q.String())
			}
		}
		for name, q := range limits {
			if have := r.Limits[name]; have.Cmp(q) != 0 {
				t.Errorf("%s is limited to %s of %s, want %s", p.Name, have.String(), name, q.String())
			}
		}
	}
	has(t.createPod(t.simple("none", nil)), item.DefaultRequest, item.Default)
	part := t.simple("part", func(p *v1.Pod) {
		p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: amounts("memory", "150Mi", "ephemeral-storage", "150Gi"), Limits: amounts("cpu", "300m", "ephemeral-storage", "400Gi")}
	})
	has(t.createPod(part), amounts("cpu", "300m", "memory", "150Mi", "ephemeral-storage", "150Gi"), amounts("cpu", "300m", "memory", "500Mi", "ephemeral-storage", "400Gi"))
	refused := func(name string, r v1.ResourceRequirements) {
		t.Helper()
		_, err := t.Client.CoreV1().Pods(t.NS).Create(t.Context(), t.simple(name, func(p *v1.Pod) { p.Spec.Containers[0].Resources = r }), create)
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want that it is forbidden", name, err)
		}
	}
	refused("low", v1.ResourceRequirements{Requests: amounts("cpu", "10m", "memory", "50Mi", "ephemeral-storage", "50Gi")})
	refused("high", v1.ResourceRequirements{Requests: amounts("cpu", "600m", "memory", "600Mi", "ephemeral-storage", "600Gi"), Limits: amounts("cpu", "600m", "memory", "600Mi", "ephemeral-storage", "600Gi")})

	least := amounts("cpu", "9m", "memory", "49Mi", "ephemeral-storage", "49Gi")
	now := got[*v1.LimitRange](t)(ranges.Get(t.Context(), "limits", get))
	now.Spec.Limits[0].Min = least
	got[*v1.LimitRange](t)(ranges.Update(t.Context(), now, update))
	t.until("the new limits to hold", func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().Pods(t.NS).Create(ctx, t.simple("low", func(p *v1.Pod) {
			p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: amounts("cpu", "10m", "memory", "50Mi", "ephemeral-storage", "50Gi")}
		}), create)
		if apierrors.IsForbidden(err) {
			return false, nil
		}
		return err == nil, err
	})
	refused("high", v1.ResourceRequirements{Requests: amounts("cpu", "600m"), Limits: amounts("cpu", "600m")})
	t.must(ranges.Delete(t.Context(), "limits", remove))
	t.event(w, watch.Deleted, func(o runtime.Object) bool { return o.(*v1.LimitRange).UID == made.UID })
	t.until("the limits to hold no more", func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().Pods(t.NS).Create(ctx, t.simple("high", func(p *v1.Pod) {
			p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: amounts("cpu", "600m"), Limits: amounts("cpu", "600m")}
		}), create)
		if apierrors.IsForbidden(err) {
			return false, nil
		}
		return err == nil, err
	})
})

var _ = It(limitRange+"list, patch and delete a LimitRange by collection", func(t *T) {
	other := t.NS + "-2"
	got[*v1.Namespace](t)(t.Client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: other}}, create))
	defer func() {
		t.must(t.Client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), other, remove))
	}()
	mine := metav1.ListOptions{LabelSelector: "e2e=" + t.NS}
	for _, ns := range []string{t.NS, other} {
		got[*v1.LimitRange](t)(t.Client.CoreV1().LimitRanges(ns).Create(t.Context(), &v1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "limits", Labels: map[string]string{"e2e": t.NS}},
			Spec: v1.LimitRangeSpec{Limits: []v1.LimitRangeItem{{Type: v1.LimitTypeContainer, Default: amounts("cpu", "500m", "memory", "500Mi"), DefaultRequest: amounts("cpu", "100m", "memory", "200Mi")}}}}, create))
	}
	count := func(ns string, want int) {
		t.Helper()
		t.until(fmt.Sprintf("%d of them in %q", want, ns), func(ctx context.Context) (bool, error) {
			l, err := t.Client.CoreV1().LimitRanges(ns).List(ctx, mine)
			return err == nil && len(l.Items) == want, err
		})
	}
	count("", 2)
	patched := got[*v1.LimitRange](t)(t.Client.CoreV1().LimitRanges(t.NS).Patch(t.Context(), "limits", types.StrategicMergePatchType,
		patchOf(dict{"metadata": dict{"labels": dict{"limits": "patched"}}, "spec": dict{"limits": []dict{{"type": "Container", "min": dict{"cpu": "50m"}}}}}), metav1.PatchOptions{}))
	if min := patched.Spec.Limits[0].Min[v1.ResourceCPU]; patched.Labels["limits"] != "patched" || min.String() != "50m" {
		t.Errorf("patched: %v", patched)
	}
	t.must(t.Client.CoreV1().LimitRanges(t.NS).DeleteCollection(t.Context(), remove, metav1.ListOptions{LabelSelector: "limits=patched"}))
	count(t.NS, 0)
	count(other, 1)
})

var _ = It("[sig-scheduling] SchedulerPredicates validates resource limits of pods that are allowed to run", func(t *T) {
	most := int64(0)
	for i, n := range t.takers() {
		left := n.Status.Allocatable.Cpu().MilliValue()
		for _, p := range got[*v1.PodList](t)(t.Client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.Name + ",status.phase!=Succeeded,status.phase!=Failed"})).Items {
			for j := range p.Spec.Containers {
				left -= p.Spec.Containers[j].Resources.Requests.Cpu().MilliValue()
			}
		}
		most = max(most, left)
		filler := t.createPod(t.simple(fmt.Sprint("filler-", i), func(p *v1.Pod) {
			p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{
				{MatchFields: []v1.NodeSelectorRequirement{{Key: "metadata.name", Operator: v1.NodeSelectorOpIn, Values: []string{n.Name}}}}}}}}
			p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(left*7/10, resource.DecimalSI)}
		}))
		if on := t.placedOn(filler); on != n.Name {
			t.Errorf("the filler of %s is on %s", n.Name, on)
		}
	}
	t.fitsNowhere(t.createPod(t.simple("additional", func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(most/2, resource.DecimalSI)}
	})))
	t.until("the event", func(ctx context.Context) (bool, error) {
		events, err := t.Client.CoreV1().Events(t.NS).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=additional,reason=FailedScheduling"})
		return err == nil && slices.ContainsFunc(events.Items, func(e v1.Event) bool { return strings.Contains(e.Message, "Insufficient cpu") }), err
	})
})

var _ = It(predicates+"NodeSelector is respected if not matching", func(t *T) {
	t.fitsNowhere(t.createPod(t.simple("restricted", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"label": "nonempty"} })))
})

var _ = It(predicates+"NodeSelector is respected if matching", func(t *T) {
	// A pod without a node selector shows which node is schedulable.
	node := t.placedOn(t.createPod(t.simple("without-label", nil)))
	key := "kubernetes.io/e2e-" + t.NS
	t.label(node, key, "42")
	p := t.createPod(t.simple("with-label", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{key: "42"} }))
	if on := t.placedOn(p); on != node {
		t.Errorf("it is on %s, want %s", on, node)
	}
})

var _ = It(predicates+"there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP", func(t *T) {
	node := t.placedOn(t.createPod(t.simple("without-label", nil)))
	key := "kubernetes.io/e2e-" + t.NS
	t.label(node, key, "95")
	with := func(ip string) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.NodeSelector = map[string]string{key: "95"}
			p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 54322, ContainerPort: 8080, Protocol: v1.ProtocolTCP, HostIP: ip}}
		}
	}
	t.placedOn(t.createPod(t.simple("pod4", with("0.0.0.0"))))
	t.fitsNowhere(t.createPod(t.simple("pod5", with("127.0.0.1"))))
})

// preempt fills each node with two pods of lower priorities that request foo, and checks
// that another pod of class preempts the one of the lowest priority.
func (t *T) preempt(namespace, class string) {
	t.Helper()
	low, medium := t.rank(1), t.rank(100)
	nodes := t.takers()
	var first, others []*v1.Pod
	for i, n := range nodes {
		t.stock(n.Name, "5")
		for j, amount := range []string{"2", "2"} {
			priority := medium
			if i == 0 && j == 0 {
				priority = low
			}
			p := t.createPod(t.simple(fmt.Sprintf("pod%d-%d", i, j), func(p *v1.Pod) {
				wants(amount, priority)(p)
				p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{
					{MatchFields: []v1.NodeSelectorRequirement{{Key: "metadata.name", Operator: v1.NodeSelectorOpIn, Values: []string{n.Name}}}}}}}}
			}))
			t.placedOn(p)
			if priority == low {
				first = append(first, p)
			} else {
				others = append(others, p)
			}
		}
	}
	preemptor := t.simple("preemptor", wants("2", class))
	preemptor.Namespace = namespace
	preemptor = t.createPod(preemptor)
	t.Cleanup(func() {
		err := t.Client.CoreV1().Pods(namespace).Delete(context.WithoutCancel(t.Context()), preemptor.Name, remove)
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	if on := t.placedOn(preemptor); on != nodes[0].Name {
		t.Errorf("the preemptor is on %s, want %s", on, nodes[0].Name)
	}
	for _, p := range first {
		now, err := t.Client.CoreV1().Pods(t.NS).Get(t.Context(), p.Name, get)
		if err == nil && now.DeletionTimestamp == nil || err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("the victim: %v", err)
		}
	}
	for _, p := range others {
		if now := got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Get(t.Context(), p.Name, get)); now.DeletionTimestamp != nil {
			t.Errorf("%s is deleted too", p.Name)
		}
	}
}

var _ = It(preemption+"validates basic preemption works", func(t *T) { t.preempt(t.NS, t.rank(1000)) })

var _ = It(preemption+"validates lower priority pod preemption by critical pod", func(t *T) {
	t.preempt(metav1.NamespaceSystem, "system-cluster-critical")
})

var _ = It(preemption+"validates pod disruption condition is added to the preempted pod", func(t *T) {
	const finalizer = "example.com/test-finalizer"
	node := t.takers()[0].Name
	t.stock(node, "1")
	victim := t.simple("victim", wants("1", t.rank(1)))
	victim.Finalizers = []string{finalizer}
	victim = t.createPod(victim)
	defer func() {
		_, err := t.Client.CoreV1().Pods(t.NS).Patch(context.WithoutCancel(t.Context()), victim.Name, types.MergePatchType, patchOf(dict{"metadata": dict{"finalizers": nil}}), metav1.PatchOptions{})
		t.must(err)
	}()
	t.placedOn(victim)
	t.createPod(t.simple("preemptor", wants("1", t.rank(1000))))
	t.until("the victim's condition", func(ctx context.Context) (bool, error) {
		now, err := t.Client.CoreV1().Pods(t.NS).Get(ctx, victim.Name, get)
		return err == nil && slices.ContainsFunc(now.Status.Conditions, func(c v1.PodCondition) bool {
			return c.Type == v1.DisruptionTarget && c.Status == v1.ConditionTrue && c.Reason == v1.PodReasonPreemptionByScheduler
		}), err
	})
})

var _ = It(preemption+"PreemptionExecutionPath runs ReplicaSets to verify preemption running path", func(t *T) {
	node := t.takers()[0].Name
	t.stock(node, "1000")
	w := got[watch.Interface](t)(t.Client.CoreV1().Pods(t.NS).Watch(t.Context(), all))
	defer w.Stop()
	set := func(i int, amount string, priority int32) {
		t.Helper()
		app := fmt.Sprint("pod", i)
		p := t.simple(app, wants(amount, t.rank(priority)))
		p.Spec.NodeSelector = map[string]string{v1.LabelHostname: node}
		got[*appsv1.ReplicaSet](t)(t.Client.AppsV1().ReplicaSets(t.NS).Create(t.Context(), &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "rs-" + app}, Spec: appsv1.ReplicaSetSpec{
			Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}}, Spec: p.Spec}}}, create))
		t.until(app+" to have a node", func(context.Context) (bool, error) {
			return slices.ContainsFunc(t.podsWith(app), func(p v1.Pod) bool { return p.Spec.NodeName != "" }), nil
		})
	}
	set(1, "200", 1)
	set(2, "300", 2)
	set(3, "450", 3)
	set(4, "500", 4)
	// The pods that the fourth has preempted are created again, and wait.
	ended := map[string]bool{}
	t.event(w, watch.Deleted, func(o runtime.Object) bool {
		ended[o.(*v1.Pod).Labels["app"]] = true
		return ended["pod1"] && ended["pod2"]
	})
	for _, app := range []string{"pod1", "pod2"} {
		t.until("another "+app, func(context.Context) (bool, error) {
			pods := t.podsWith(app)
			return len(pods) == 1 && pods[0].Spec.NodeName == "", nil
		})
	}
	if pods := t.podsWith("pod3"); len(pods) != 1 || pods[0].Spec.NodeName == "" {
		t.Errorf("pod3 was preempted: %v", pods)
	}
})

var _ = It(preemption+"PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods", func(t *T) {
	classes := t.Client.SchedulingV1().PriorityClasses()
	names := []string{t.rank(1), t.rank(2)}
	for _, name := range names {
		c := got[*schedulingv1.PriorityClass](t)(classes.Get(t.Context(), name, get))
		c.Value *= 10
		if _, err := classes.Update(t.Context(), c, update); !apierrors.IsInvalid(err) {
			t.Errorf("a change of the value: %v, want that it is invalid", err)
		}
		if _, err := classes.Patch(t.Context(), name, types.JSONPatchType, patchOf([]dict{{"op": "replace", "path": "/value", "value": c.Value}}), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("a patch of the value: %v, want that it is invalid", err)
		}
		patched := got[*schedulingv1.PriorityClass](t)(classes.Patch(t.Context(), name, types.MergePatchType, patchOf(dict{"description": "patched"}), metav1.PatchOptions{}))
		if patched.Description != "patched" {
			t.Errorf("patched: %v", patched)
		}
		patched.Description = "updated"
		if got[*schedulingv1.PriorityClass](t)(classes.Update(t.Context(), patched, update)).Description != "updated" {
			t.Error("it is not updated")
		}
	}
	list := got[*schedulingv1.PriorityClassList](t)(classes.List(t.Context(), all))
	for _, name := range names {
		if !slices.ContainsFunc(list.Items, func(c schedulingv1.PriorityClass) bool { return c.Name == name }) {
			t.Errorf("%s is not listed", name)
		}
	}
})
