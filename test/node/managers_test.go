package node_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/utils/cpuset"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/node/exclusive"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realnode"
)

const sampleResource = "example.com/sample"

// samplePlugin is a device plug-in: each device is /dev/null by another name.
type samplePlugin struct {
	pluginapi.UnimplementedDevicePluginServer
	devices chan []*pluginapi.Device
}

func (p *samplePlugin) ListAndWatch(_ *pluginapi.Empty, s grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	for {
		select {
		case d := <-p.devices:
			if err := s.Send(&pluginapi.ListAndWatchResponse{Devices: d}); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (p *samplePlugin) Allocate(_ context.Context, r *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	out := &pluginapi.AllocateResponse{}
	for _, c := range r.ContainerRequests {
		out.ContainerResponses = append(out.ContainerResponses, &pluginapi.ContainerAllocateResponse{Envs: map[string]string{"SAMPLE": strings.Join(c.DevicesIds, ",")},
			Devices: []*pluginapi.DeviceSpec{{ContainerPath: "/dev/sample", HostPath: "/dev/null", Permissions: "rw"}}})
	}
	return out, nil
}

// dial connects to a socket of the node.
func dial(t *testing.T, path string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// register has the plug-in serve, and registers it with the node.
func (p *samplePlugin) register(t *testing.T, dir string) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, "sample.sock"))
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(g, p)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	r := pluginapi.NewRegistrationClient(dial(t, filepath.Join(dir, "kubelet.sock")))
	if _, err := r.Register(t.Context(), &pluginapi.RegisterRequest{Version: pluginapi.Version, Endpoint: "sample.sock", ResourceName: sampleResource}); err != nil {
		t.Fatal(err)
	}
}

// reservedMemory is kept from pods: so much for Kubernetes, and so much for evictions.
const reservedMemory = 100 << 20

// TestManagers checks that containers have CPUs, memory and devices for themselves, that
// others are kept off these CPUs, and that a pod which cannot have them is refused.
func TestManagers(t *testing.T) {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		t.Fatal(err)
	}
	all, err := cpuset.Parse(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if all.Size() < 2 {
		t.Skip("this machine has one CPU: none can be a container's own")
	}
	memory := *resource.NewQuantity(reservedMemory, resource.BinarySI)
	both := *resource.NewQuantity(2*reservedMemory, resource.BinarySI)
	n := realnode.Start(t, agent.Options{KubeReserved: v1.ResourceList{v1.ResourceCPU: resource.MustParse("500m"), v1.ResourceMemory: memory}, Exclusive: exclusive.Options{
		CPUPolicy: "static", MemoryPolicy: "Static", ReservedMemory: map[int]v1.ResourceList{0: {v1.ResourceMemory: both}}, TopologyPolicy: "best-effort"}})
	e := &env{t, kubernetes.NewForConfigOrDie(n.Config), n.Config, n.Runtime, n.Logs, n.Manifests}
	dir := filepath.Join(filepath.Dir(e.manifests), "node")
	plugin := &samplePlugin{devices: make(chan []*pluginapi.Device)}
	plugin.register(t, filepath.Join(dir, "device-plugins"))
	device := func(id, health string) *pluginapi.Device { return &pluginapi.Device{ID: id, Health: health} }
	plugin.devices <- []*pluginapi.Device{device("one", pluginapi.Healthy), device("two", pluginapi.Unhealthy)}
	harness.Eventually(t, "the devices in the node's status", func() bool {
		node, err := e.client.CoreV1().Nodes().Get(t.Context(), "node", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c, a := node.Status.Capacity[sampleResource], node.Status.Allocatable[sampleResource]
		return c.Value() == 2 && a.Value() == 1
	})

	e.create(web("sharing"))
	e.pod("sharing", ready)
	own := web("own")
	want := v1.ResourceList{v1.ResourceCPU: resource.MustParse("1"), v1.ResourceMemory: resource.MustParse("64Mi"), sampleResource: resource.MustParse("1")}
	own.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: want, Limits: want}
	e.create(own)
	p := e.pod("own", ready)
	allowed := func(pod string) cpuset.CPUSet {
		t.Helper()
		for line := range strings.Lines(e.exec(pod, "web", "", "/bin/demo", "cat", "/proc/1/status")) {
			if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
				c, err := cpuset.Parse(strings.TrimSpace(list))
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
		}
		t.Fatal("no Cpus_allowed_list")
		return cpuset.New()
	}
	its := allowed("own")
	if its.Size() != 1 {
		t.Errorf("the pod has the CPUs %s, want one", its)
	}
	harness.Eventually(t, "the other pod to be off the CPU", func() bool { return allowed("sharing").Equals(all.Difference(its)) })
	if got := e.exec("own", "web", "", "/bin/demo", "env"); !strings.Contains(got, "SAMPLE=one\n") {
		t.Errorf("its environment is %q", got)
	}
	if got := e.exec("own", "web", "", "/bin/demo", "cat", "/dev/sample"); got != "" {
		t.Errorf("its device has %q", got)
	}
	health := func(p *v1.Pod) string {
		s := p.Status.ContainerStatuses[0].AllocatedResourcesStatus
		if len(s) != 1 || s[0].Name != sampleResource || len(s[0].Resources) != 1 {
			return ""
		}
		return string(s[0].Resources[0].ResourceID) + " " + string(s[0].Resources[0].Health)
	}
	if got := health(p); got != "one Healthy" {
		t.Errorf("its device is told as %q", got)
	}

	r, err := podresources.NewPodResourcesListerClient(dial(t, filepath.Join(dir, "pod-resources", "kubelet.sock"))).Get(t.Context(), &podresources.GetPodResourcesRequest{PodName: "own", PodNamespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	c := r.PodResources.Containers[0]
	if !slices.Equal(c.CpuIds, []int64{int64(its.List()[0])}) || len(c.Devices) != 1 || !slices.Equal(c.Devices[0].DeviceIds, []string{"one"}) || len(c.Memory) != 1 || c.Memory[0].Size != 64<<20 {
		t.Errorf("the pod's resources: %v", c)
	}

	plugin.devices <- []*pluginapi.Device{device("one", pluginapi.Unhealthy), device("two", pluginapi.Unhealthy)}
	e.pod("own", func(p *v1.Pod) bool { return health(p) == "one Unhealthy" })

	refused := func(name string, l v1.ResourceList, message string) {
		t.Helper()
		p := web(name)
		p.Spec.NodeName = "node"
		p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: l, Limits: l}
		e.create(p)
		p = e.pod(name, func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })
		if p.Status.Reason != "UnexpectedAdmissionError" || p.Status.Message != message {
			t.Errorf("%s: %s: %s", name, p.Status.Reason, p.Status.Message)
		}
		e.remove(name)
	}
	refused("device", v1.ResourceList{sampleResource: resource.MustParse("1")},
		"Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices example.com/sample, which is unexpected")
	refused("cpus", v1.ResourceList{v1.ResourceCPU: *resource.NewQuantity(int64(all.Size()), resource.DecimalSI), v1.ResourceMemory: resource.MustParse("1Mi")},
		"Pod was rejected: Allocate failed due to not enough cpus available to satisfy request: requested="+strconv.Itoa(all.Size())+", available="+strconv.Itoa(all.Size()-2)+", which is unexpected")

	// What is fixed is not resized, and says so.
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		p, err := e.client.CoreV1().Pods("default").Get(t.Context(), "own", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, l := range []v1.ResourceList{p.Spec.Containers[0].Resources.Requests, p.Spec.Containers[0].Resources.Limits} {
			l[v1.ResourceMemory] = resource.MustParse("80Mi")
		}
		_, err = e.client.CoreV1().Pods("default").UpdateResize(t.Context(), "own", p, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	e.pod("own", func(p *v1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool {
			return c.Type == v1.PodResizePending && c.Reason == v1.PodReasonInfeasible && c.Message == "Resize is infeasible for Guaranteed Pods alongside CPU Manager static policy"
		})
	})

	e.remove("own")
	harness.Eventually(t, "the CPU to be shared again", func() bool { return allowed("sharing").Equals(all) })
	if b, err := os.ReadFile(filepath.Join(dir, "cpu_manager_state")); err != nil || strings.Contains(string(b), string(p.UID)) {
		t.Errorf("the CPUs' state is %s, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "memory_manager_state")); errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
