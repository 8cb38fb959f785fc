package node_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

// draDriver is a driver of devices that do not exist, made with upstream's
// library.
type draDriver struct {
	mu    sync.Mutex
	calls []string
}

func (d *draDriver) note(call string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, call)
}

func (d *draDriver) has(call string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.calls, call)
}

func (d *draDriver) PrepareResourceClaims(_ context.Context, claims []*resourcev1.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	out := map[types.UID]kubeletplugin.PrepareResult{}
	for _, c := range claims {
		r := c.Status.Allocation.Devices.Results[0]
		d.note("prepare " + r.Device)
		out[c.UID] = kubeletplugin.PrepareResult{Devices: []kubeletplugin.Device{{Requests: []string{r.Request}, PoolName: r.Pool, DeviceName: r.Device}}}
	}
	return out, nil
}

func (d *draDriver) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	out := map[types.UID]error{}
	for _, c := range claims {
		d.note("unprepare")
		out[c.UID] = nil
	}
	return out, nil
}

func (d *draDriver) WatchHealthStatus(context.Context, chan<- kubeletplugin.DeviceHealthReport) error {
	return kubeletplugin.ErrHealthNotSupported
}

func (d *draDriver) HandleError(_ context.Context, err error, msg string) {
	d.note(fmt.Sprint(msg, ": ", err))
}

// devices checks that a pod's claim is made from its template, allocated by the
// scheduler, prepared by its driver, and released after the pod.
func (e *env) devices(t *testing.T) {
	const name = "dra.example.com"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	node, err := e.client.CoreV1().Nodes().Get(ctx, "node", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d, dir := &draDriver{}, filepath.Join(filepath.Dir(e.manifests), "node")
	data := filepath.Join(dir, "plugins", name)
	if err := os.MkdirAll(data, 0o750); err != nil {
		t.Fatal(err)
	}
	helper, err := kubeletplugin.Start(ctx, d, kubeletplugin.DriverName(name), kubeletplugin.KubeClient(e.client), kubeletplugin.NodeName("node"), kubeletplugin.NodeUID(node.UID),
		kubeletplugin.RegistrarDirectoryPath(filepath.Join(dir, "plugins_registry")), kubeletplugin.PluginDataDirectoryPath(data))
	if err != nil {
		t.Fatal(err)
	}
	defer helper.Stop()
	if err := helper.PublishResources(ctx, resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{"node": {Slices: []resourceslice.Slice{{Devices: []resourcev1.Device{{Name: "one"}}}}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.client.ResourceV1().DeviceClasses().Create(ctx, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "nothing"}, Spec: resourcev1.DeviceClassSpec{
		Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: fmt.Sprintf("device.driver == %q", name)}}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.client.ResourceV1().ResourceClaimTemplates("default").Create(ctx, &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "one"},
		Spec: resourcev1.ResourceClaimTemplateSpec{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r",
			Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "nothing"}}}}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.client.CoreV1().Pods("default").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "devices"}, Spec: v1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](0),
		ResourceClaims:                []v1.PodResourceClaim{{Name: "d", ResourceClaimTemplateName: ptr.To("one")}},
		Containers:                    []v1.Container{{Name: "c", Image: image, Resources: v1.ResourceRequirements{Claims: []v1.ResourceClaim{{Name: "d"}}}}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e.pod("devices", ready)
	if !d.has("prepare one") {
		t.Errorf("the pod runs, and its driver has been asked %q", d.calls)
	}
	if err := e.client.CoreV1().Pods("default").Delete(ctx, "devices", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the device to be given back", func() bool { return d.has("unprepare") })
	harness.Eventually(t, "the end of the claim", func() bool {
		list, err := e.client.ResourceV1().ResourceClaims("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Items) == 0
	})
}
