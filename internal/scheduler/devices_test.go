package scheduler_test

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// devices publishes devices of a node, and a class for them that also stands for
// an extended resource.
func devices(t *testing.T, client kubernetes.Interface, node string, names ...string) {
	t.Helper()
	s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node + "-gpus"}, Spec: resourcev1.ResourceSliceSpec{
		Driver: "gpu.example.com", NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1}}}
	for i, n := range names {
		s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: n, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"index": {IntValue: ptr.To(int64(i))}}})
	}
	if _, err := client.ResourceV1().ResourceSlices().Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ResourceV1().DeviceClasses().Create(t.Context(), &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.DeviceClassSpec{
		Selectors:            []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: `device.driver == "gpu.example.com"`}}},
		ExtendedResourceName: ptr.To("example.com/gpu"),
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// claimTemplate wants a device whose index the expression accepts.
func claimTemplate(t *testing.T, client kubernetes.Interface, name, class, expression string, tolerations ...resourcev1.DeviceToleration) {
	t.Helper()
	q := &resourcev1.ExactDeviceRequest{DeviceClassName: class, Tolerations: tolerations}
	if expression != "" {
		q.Selectors = []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: expression}}}
	}
	if _, err := client.ResourceV1().ResourceClaimTemplates(ns).Create(t.Context(), &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: resourcev1.ResourceClaimTemplateSpec{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "gpu", Exactly: q}}}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func withClaim(template string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: &template}}
		p.Spec.Containers[0].Resources.Claims = []v1.ResourceClaim{{Name: "gpu"}}
	}
}

// has returns the devices that a pod's claims have, and checks their reservation.
func has(t *testing.T, client kubernetes.Interface, p *v1.Pod, claim string) string {
	t.Helper()
	c, err := client.ResourceV1().ResourceClaims(ns).Get(t.Context(), claim, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Status.Allocation == nil || len(c.Status.ReservedFor) != 1 || c.Status.ReservedFor[0].UID != p.UID || len(c.Finalizers) != 1 {
		t.Fatalf("the claim of %s is %+v, %+v", p.Name, c.Finalizers, c.Status)
	}
	var out []string
	for _, r := range c.Status.Allocation.Devices.Results {
		out = append(out, r.Device)
	}
	return strings.Join(out, " ")
}

// TestDevices allocates devices to pods' claims, on the node that has them.
func TestDevices(t *testing.T) {
	client, _ := start(t, 3)
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node := nodes.Items[1].Name
	devices(t, client, node, "gpu-0", "gpu-1")
	claimTemplate(t, client, "any", "gpu", "")
	claimTemplate(t, client, "second", "gpu", `device.attributes["gpu.example.com"].index == 1`)
	claimTemplate(t, client, "strange", "none", "")
	claimTemplate(t, client, "broken", "gpu", `device.attributes["gpu.example.com"].nothing == 1`)

	create(t, client, pod("a", withClaim("second")))
	a := until(t, client, "a", bound)
	if got := has(t, client, a, *a.Status.ResourceClaimStatuses[0].ResourceClaimName); a.Spec.NodeName != node || got != "gpu-1" {
		t.Errorf("pod a is on %s with %s, want %s with gpu-1", a.Spec.NodeName, got, node)
	}
	create(t, client, pod("b", withClaim("any")))
	b := until(t, client, "b", bound)
	if got := has(t, client, b, *b.Status.ResourceClaimStatuses[0].ResourceClaimName); b.Spec.NodeName != node || got != "gpu-0" {
		t.Errorf("pod b is on %s with %s, want %s with gpu-0", b.Spec.NodeName, got, node)
	}
	create(t, client, pod("c", withClaim("any")))
	refused(t, client, "c", v1.PodReasonUnschedulable, "0/3 nodes are available: 3 cannot allocate all claims. still not schedulable, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.")
	create(t, client, pod("d", withClaim("strange")))
	refused(t, client, "d", v1.PodReasonUnschedulable, "0/3 nodes are available: request gpu: device class none does not exist. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.")
	if err := client.CoreV1().Pods(ns).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c := until(t, client, "c", bound)
	if got := has(t, client, c, *c.Status.ResourceClaimStatuses[0].ResourceClaimName); got != "gpu-1" {
		t.Errorf("pod c has %s, want gpu-1, which pod a had", got)
	}
}

// TestSharedClaim gives one claim to several pods: all go where its device is.
func TestSharedClaim(t *testing.T) {
	client, _ := start(t, 3)
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node := nodes.Items[2].Name
	devices(t, client, node, "gpu-0")
	if _, err := client.ResourceV1().ResourceClaims(ns).Create(t.Context(), &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "shared"},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a", "b", "c"} {
		create(t, client, pod(n, func(p *v1.Pod) {
			p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu", ResourceClaimName: ptr.To("shared")}}
		}))
	}
	for _, n := range []string{"a", "b", "c"} {
		if p := until(t, client, n, bound); p.Spec.NodeName != node {
			t.Errorf("pod %s is on %s, want %s", n, p.Spec.NodeName, node)
		}
	}
	c, err := client.ResourceV1().ResourceClaims(ns).Get(t.Context(), "shared", metav1.GetOptions{})
	if err != nil || len(c.Status.ReservedFor) != 3 {
		t.Errorf("the claim is reserved for %+v (%v), want the three pods", c.Status.ReservedFor, err)
	}
}

// TestExtendedResource gives a device for an extended resource that no node has
// (KEP-5004).
func TestExtendedResource(t *testing.T) {
	client, _ := start(t, 2)
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node := nodes.Items[1].Name
	devices(t, client, node, "gpu-0")
	wants := func(p *v1.Pod) {
		list := v1.ResourceList{"example.com/gpu": resource.MustParse("1")}
		p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: list, Limits: list}
	}
	create(t, client, pod("a", wants))
	a := until(t, client, "a", bound)
	s := a.Status.ExtendedResourceClaimStatus
	if a.Spec.NodeName != node || s == nil || len(s.RequestMappings) != 1 || s.RequestMappings[0] != (v1.ContainerExtendedResourceRequest{ContainerName: "c", ResourceName: "example.com/gpu", RequestName: "container-0-request-0"}) {
		t.Fatalf("pod a is on %s with %+v", a.Spec.NodeName, s)
	}
	if got := has(t, client, a, s.ResourceClaimName); got != "gpu-0" {
		t.Errorf("pod a has %s, want gpu-0", got)
	}
	create(t, client, pod("b", wants))
	refused(t, client, "b", v1.PodReasonUnschedulable, "0/2 nodes are available: 2 cannot allocate all claims. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.")
	if err := client.CoreV1().Pods(ns).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, client, "b", bound)
}

// TestTaintedDevice does not give devices with taints of drivers or rules to claims
// that do not tolerate them (KEP-5055).
func TestTaintedDevice(t *testing.T) {
	client, _ := start(t, 1)
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.ResourceV1().DeviceTaintRules().Create(t.Context(), &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "ill"}, Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{Device: ptr.To("gpu-0")}, Taint: resourcev1.DeviceTaint{Key: "ill", Effect: resourcev1.DeviceTaintEffectNoSchedule}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	devices(t, client, nodes.Items[0].Name, "gpu-0")
	claimTemplate(t, client, "any", "gpu", "")
	claimTemplate(t, client, "brave", "gpu", "", resourcev1.DeviceToleration{Key: "ill", Operator: resourcev1.DeviceTolerationOpExists})
	create(t, client, pod("a", withClaim("any")))
	refused(t, client, "a", v1.PodReasonUnschedulable, "0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	create(t, client, pod("b", withClaim("brave")))
	b := until(t, client, "b", bound)
	if err := client.CoreV1().Pods(ns).Delete(t.Context(), b.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.ResourceV1().DeviceTaintRules().Delete(t.Context(), "ill", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, client, "a", bound)
}
