package conformance

import (
	"context"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

var _ = It("[sig-node] Lease lease API should be available", func(t *T) {
	t.operate(operations{gvr: gvr("coordination.k8s.io", "v1", "leases"),
		one: t.template("{apiVersion: coordination.k8s.io/v1, kind: Lease, spec: {holderIdentity: holder, leaseDurationSeconds: 30, acquireTime: '2026-01-01T00:00:00.000000Z', renewTime: '2026-01-01T00:00:05.000000Z', leaseTransitions: 0}}")})
})

var _ = It("[sig-node] RuntimeClass should support RuntimeClasses API operations", func(t *T) {
	t.operate(operations{gvr: gvr("node.k8s.io", "v1", "runtimeclasses"), cluster: true, one: t.template("{apiVersion: node.k8s.io/v1, kind: RuntimeClass, handler: conformance}")})
})

var _ = It("[sig-node] PodTemplates should run the lifecycle of PodTemplates", func(t *T) {
	t.operate(operations{gvr: gvr("", "v1", "podtemplates"), one: t.template("{apiVersion: v1, kind: PodTemplate, template: {metadata: {labels: {podtemplate: conformance}}, spec: {containers: [{name: nginx, image: nginx}]}}}")})
})

func podTemplate(name string) *v1.PodTemplate {
	return &v1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"podtemplate-set": "true"}},
		Template: v1.PodTemplateSpec{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "token-test", Image: "keelson.local/demo"}}}}}
}

var _ = It("[sig-node] PodTemplates should delete a collection of pod templates", func(t *T) {
	templates, mine := t.Client.CoreV1().PodTemplates(t.NS), metav1.ListOptions{LabelSelector: "podtemplate-set=true"}
	for i := range 3 {
		got[*v1.PodTemplate](t)(templates.Create(t.Context(), podTemplate(fmt.Sprintf("template-%d", i)), create))
	}
	if l := got[*v1.PodTemplateList](t)(templates.List(t.Context(), mine)); len(l.Items) != 3 {
		t.Errorf("%d templates", len(l.Items))
	}
	t.must(templates.DeleteCollection(t.Context(), remove, mine))
	if l := got[*v1.PodTemplateList](t)(templates.List(t.Context(), mine)); len(l.Items) != 0 {
		t.Errorf("%d templates are left", len(l.Items))
	}
})

var _ = It("[sig-node] PodTemplates should replace a pod template", func(t *T) {
	templates := t.Client.CoreV1().PodTemplates(t.NS)
	p := got[*v1.PodTemplate](t)(templates.Create(t.Context(), podTemplate("template"), create))
	p.Annotations = map[string]string{"updated": "true"}
	got[*v1.PodTemplate](t)(templates.Update(t.Context(), p, update))
	if p := got[*v1.PodTemplate](t)(templates.Get(t.Context(), "template", get)); p.Annotations["updated"] != "true" {
		t.Errorf("annotations %v", p.Annotations)
	}
})

var _ = It("[sig-node] Node Lifecycle should run through the lifecycle of a node", func(t *T) {
	nodes := t.Client.CoreV1().Nodes()
	name := "e2e-fake-node-" + t.NS
	w := got[watch.Interface](t)(nodes.Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name}))
	defer w.Stop()
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Phase: v1.NodeRunning, Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue, Message: "Set from a test", Reason: "E2E"}}}}
	got[*v1.Node](t)(nodes.Create(t.Context(), n, create))
	defer func() {
		if err := nodes.Delete(context.WithoutCancel(t.Context()), name, remove); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}()
	t.event(w, watch.Added, nil)
	got[*v1.Node](t)(nodes.Get(t.Context(), name, get))
	n = got[*v1.Node](t)(nodes.Patch(t.Context(), name, types.StrategicMergePatchType, patchOf(dict{"metadata": dict{"labels": dict{name: "patched"}}}), metav1.PatchOptions{}))
	if n.Labels[name] != "patched" {
		t.Errorf("labels %v", n.Labels)
	}
	// change writes the node, and retries on conflicts.
	change := func(write func(context.Context, *v1.Node, metav1.UpdateOptions) (*v1.Node, error), f func(*v1.Node)) *v1.Node {
		t.Helper()
		for {
			n := got[*v1.Node](t)(nodes.Get(t.Context(), name, get))
			f(n)
			out, err := write(t.Context(), n, update)
			if !apierrors.IsConflict(err) {
				t.must(err)
				return out
			}
		}
	}
	if n = change(nodes.Update, func(n *v1.Node) { n.Labels[name] = "updated" }); n.Labels[name] != "updated" {
		t.Errorf("labels %v", n.Labels)
	}
	if l := got[*v1.NodeList](t)(nodes.List(t.Context(), metav1.ListOptions{LabelSelector: name + "=updated"})); len(l.Items) != 1 {
		t.Errorf("%d nodes with the label", len(l.Items))
	}
	status := dict{"status": dict{"conditions": []dict{{"type": "Conformance", "status": "True", "reason": "E2E", "message": "Set from a patch"}}}}
	n = got[*v1.Node](t)(nodes.Patch(t.Context(), name, types.StrategicMergePatchType, patchOf(status), metav1.PatchOptions{}, "status"))
	if !strings.Contains(fmt.Sprint(n.Status.Conditions), "Set from a patch") {
		t.Errorf("conditions %v", n.Status.Conditions)
	}
	n = change(nodes.UpdateStatus, func(n *v1.Node) {
		n.Status.Conditions = append(n.Status.Conditions, v1.NodeCondition{Type: "Update", Status: v1.ConditionTrue, Reason: "E2E", Message: "Set from an update"})
	})
	if !strings.Contains(fmt.Sprint(n.Status.Conditions), "Set from an update") {
		t.Errorf("conditions %v", n.Status.Conditions)
	}
	t.must(nodes.DeleteCollection(t.Context(), remove, metav1.ListOptions{LabelSelector: name + "=updated"}))
	t.event(w, watch.Deleted, nil)
})

// dra tests the verbs of a resource of resource.k8s.io.
func dra(resource, kind, spec string, cluster bool, status func(*unstructured.Unstructured)) func(*T) {
	return func(t *T) {
		t.operate(operations{gvr: gvr("resource.k8s.io", "v1", resource), cluster: cluster, status: status, statusOnly: status != nil,
			one: t.template("{apiVersion: resource.k8s.io/v1, kind: " + kind + ", " + spec + "}")})
	}
}

var (
	_ = It("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass", dra("deviceclasses", "DeviceClass", "spec: {selectors: [{cel: {expression: 'device.driver == \"dra.example.com\"'}}]}", true, nil))
	_ = It("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim", dra("resourceclaims", "ResourceClaim", "spec: {devices: {requests: [{name: req-0, exactly: {deviceClassName: example}}]}}", false, func(u *unstructured.Unstructured) {
		u.Object["status"] = dict{"allocation": dict{"devices": dict{"results": []any{dict{"request": "req-0", "driver": "dra.example.com", "pool": "pool", "device": "device-0"}}}}}
		u.SetFinalizers(nil)
	}))
	_ = It("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate", dra("resourceclaimtemplates", "ResourceClaimTemplate", "spec: {spec: {devices: {requests: [{name: req-0, exactly: {deviceClassName: example}}]}}}", false, nil))
	_ = It("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice", dra("resourceslices", "ResourceSlice", "spec: {driver: dra.example.com, nodeName: no-such-node, pool: {name: pool, resourceSliceCount: 3}, devices: [{name: device-0}]}", true, nil))
)

// Runtime classes.

// runtimeClass makes a class of the node's default runtime.
func (t *T) runtimeClass(handler string, overhead *nodev1.Overhead) *nodev1.RuntimeClass {
	t.Helper()
	rc := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "class-" + t.NS}, Handler: handler, Overhead: overhead}
	rc = got[*nodev1.RuntimeClass](t)(t.Client.NodeV1().RuntimeClasses().Create(t.Context(), rc, create))
	t.Cleanup(func() {
		if err := t.Client.NodeV1().RuntimeClasses().Delete(context.Background(), rc.Name, remove); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return rc
}

func ofClass(name string) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.RuntimeClassName = &name }
}

var _ = It("[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass", func(t *T) {
	p := pod("p", nil)
	ofClass("no-such-class-" + t.NS)(p)
	_, err := t.Client.CoreV1().Pods(t.NS).Create(t.Context(), p, create)
	t.forbidden(err)
})

var _ = It("[sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass", func(t *T) {
	rc := t.runtimeClass("conformance", nil)
	t.must(t.Client.NodeV1().RuntimeClasses().Delete(t.Context(), rc.Name, remove))
	p := pod("p", nil)
	ofClass(rc.Name)(p)
	t.until("the refusal of a pod", func(ctx context.Context) (bool, error) {
		_, err := t.Client.CoreV1().Pods(t.NS).Create(ctx, p, create)
		if err == nil {
			t.deletePod("p")
			return false, nil
		}
		t.forbidden(err)
		return true, nil
	})
})

var _ = InContainers("[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead", func(t *T) {
	rc := t.runtimeClass("runc", nil)
	if out := t.output(t.script("p", "echo ran", ofClass(rc.Name))); out != "ran\n" {
		t.Errorf("output %q", out)
	}
})

var _ = InContainers("[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead", func(t *T) {
	overhead := amounts("cpu", "10m", "memory", "1Mi")
	rc := t.runtimeClass("runc", &nodev1.Overhead{PodFixed: overhead})
	p := t.makePod(t.script("p", "true", ofClass(rc.Name)))
	if p.Spec.Overhead.Cpu().Cmp(*overhead.Cpu()) != 0 || p.Spec.Overhead.Memory().Cmp(*overhead.Memory()) != 0 {
		t.Errorf("overhead %v", p.Spec.Overhead)
	}
	t.inPhase("p", v1.PodSucceeded)
})

// Taints.

const evict = "kubernetes.io/e2e-evict-taint-key"

// taint adds a NoExecute taint to a node, or removes it.
func (t *T) taint(node string, on bool) {
	t.Helper()
	nodes := t.Client.CoreV1().Nodes()
	for {
		n := got[*v1.Node](t)(nodes.Get(context.WithoutCancel(t.Context()), node, get))
		var taints []v1.Taint
		for _, has := range n.Spec.Taints {
			if has.Key != evict {
				taints = append(taints, has)
			}
		}
		if on {
			taints = append(taints, v1.Taint{Key: evict, Value: "evictTaintVal", Effect: v1.TaintEffectNoExecute})
		}
		n.Spec.Taints = taints
		_, err := nodes.Update(context.WithoutCancel(t.Context()), n, update)
		if apierrors.IsConflict(err) {
			continue
		}
		t.must(err)
		return
	}
}

// tolerant returns a pod that tolerates the taint for some seconds.
func (t *T) tolerant(name string, seconds int64) *v1.Pod {
	p := pod(name, nil)
	p.Spec.Tolerations = []v1.Toleration{{Key: evict, Value: "evictTaintVal", Effect: v1.TaintEffectNoExecute, TolerationSeconds: &seconds}}
	return p
}

var _ = It("[sig-node] NoExecuteTaintManager Single Pod removing taint cancels eviction", func(t *T) {
	const bears = 3
	t.makePod(t.tolerant("p", bears))
	p := t.inPhase("p", v1.PodRunning)
	t.taint(p.Spec.NodeName, true)
	defer t.taint(p.Spec.NodeName, false)
	tainted := time.Now()
	t.taint(p.Spec.NodeName, false)
	t.pod("p", func(p *v1.Pod) error {
		if p.DeletionTimestamp != nil {
			t.Fatal("the pod was evicted")
		}
		if time.Since(tainted) < (bears+2)*time.Second {
			return fmt.Errorf("tainted at %v", tainted)
		}
		return nil
	})
})

var _ = It("[sig-node] NoExecuteTaintManager Multiple Pods evicts pods with minTolerationSeconds", func(t *T) {
	t.makePod(t.tolerant("p1", 1))
	first := t.inPhase("p1", v1.PodRunning)
	second := t.tolerant("p2", 3)
	second.Spec.NodeSelector = map[string]string{v1.LabelHostname: got[*v1.Node](t)(t.Client.CoreV1().Nodes().Get(t.Context(), first.Spec.NodeName, get)).Labels[v1.LabelHostname]}
	t.makePod(second)
	t.inPhase("p2", v1.PodRunning)
	t.taint(first.Spec.NodeName, true)
	defer t.taint(first.Spec.NodeName, false)
	pods := t.Dynamic.Resource(v1.SchemeGroupVersion.WithResource("pods")).Namespace(t.NS)
	t.gone(pods, "p1")
	if p, err := t.Client.CoreV1().Pods(t.NS).Get(t.Context(), "p2", get); err != nil || p.DeletionTimestamp != nil {
		t.Errorf("the pod that bears the taint for longer has gone first: %v", err)
	}
	t.gone(pods, "p2")
})
