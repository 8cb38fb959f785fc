package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/containerd/containerd/api/services/snapshots/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/network/podnet"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/podtest"
	"keelson.dev/keelson/test/harness/realnode"
	"keelson.dev/keelson/test/harness/strike"
)

var faultRounds = flag.Int("faults", 0, "how many more rounds of TestKilledInEachPhase kill the agent and the runtime at random moments")

// agentProcess, in the environment, makes the test's program the agent of a node, with
// these settings as JSON.
const agentProcess = "KEELSON_TEST_NODE_AGENT"

// agentSettings are those of an agent in a process of its own.
type agentSettings struct {
	Data, Runtime, Cgroup, Kubeconfig, CA, Logs string
	Port                                        int
}

// runAgent runs the agent until the process is killed.
func runAgent(settings string) {
	var s agentSettings
	err := json.Unmarshal([]byte(settings), &s)
	if err == nil {
		o := agent.Options{Name: "node", Port: s.Port, Logs: s.Logs, MaxRestartPause: time.Second,
			Eviction: eviction.Settings{Hard: map[string]string{"memory.available": "100Mi"}}}
		err = agent.Run(context.Background(), machine.New(s.Data, machine.Options{Runtime: s.Runtime, CgroupRoot: s.Cgroup}),
			agent.ProcessOptions{Options: o, Kubeconfig: s.Kubeconfig, ClientCAFile: s.CA, Ready: func() { fmt.Println("ready") }})
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

// killable is a node whose agent is a process of its own, which reaches the runtime, a CSI
// driver and the API server by way of this process.
type killable struct {
	*env
	strike.Points
	agent *harness.Process
	// data is the data folder, state the runtime's state folder, cgroup the pods' cgroups.
	data, state, cgroup string
	runtime             *cri.Client

	mu sync.Mutex
	// pods are the names of pods by the ID of their sandbox, containers the names
	// "pod/container" by the container's ID.
	pods, containers map[string]string
	// created and started count what the runtime has answered, by container.
	created, started map[string]int
}

// podRanges are those of the pods' addresses.
var podRanges = []netip.Prefix{netip.MustParsePrefix("10.213.0.0/24")}

// driverName is the name of the CSI driver.
const driverName = "strike.csi.keelson.dev"

func startKillable(t testing.TB) *killable {
	t.Helper()
	k := &killable{pods: map[string]string{}, containers: map[string]string{}, created: map[string]int{}, started: map[string]int{}}
	n := realnode.StartBy(t, agent.Options{}, func(c *cluster.Cluster, wait context.Context, m *machine.Machine, o agent.Options) error {
		ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
		t.Cleanup(stop)
		if err := m.Start(ctx, func(_ string, f func() error) error { return f() }); err != nil {
			return err
		}
		if err := m.Connect(podnet.Plan{Own: podRanges, All: podRanges}); err != nil {
			return err
		}
		cfg, err := realnode.NodeConfig(wait, c, o.Name)
		if err != nil {
			return err
		}
		transport, err := rest.TransportFor(cfg)
		if err != nil {
			return err
		}
		real := strings.TrimPrefix(m.Endpoint(), "unix://")
		k.data, k.state, k.cgroup = filepath.Dir(m.Dir()), filepath.Dir(real), m.CgroupRoot()
		s := agentSettings{Data: k.data, Runtime: filepath.Join(k.data, "cri.sock"), Cgroup: k.cgroup, Kubeconfig: filepath.Join(k.data, "kubeconfig"), CA: filepath.Join(k.data, "ca.pem"), Logs: o.Logs, Port: o.Port}
		if k.runtime, err = cri.Connect(wait, m.Endpoint()); err != nil {
			return err
		}
		t.Cleanup(func() { k.runtime.Close() })
		k.Serve(t, s.Runtime, real, k)
		api := k.ServeHTTP(t, cfg.Host, transport, aboutRequest)
		if err := errors.Join(clientcmd.WriteToFile(*certs.Kubeconfig("node", api, nil, certs.Pair{}), s.Kubeconfig), os.WriteFile(s.CA, cfg.CAData, 0o644)); err != nil {
			return err
		}
		k.serveDriver(t, filepath.Join(k.data, "disk"), m.Root())
		settings, err := json.Marshal(s)
		if err != nil {
			return err
		}
		k.agent = harness.StartProcess(t, func() *exec.Cmd { return harness.Self(agentProcess + "=" + string(settings)) })
		return nil
	})
	k.env = &env{t, kubernetes.NewForConfigOrDie(n.Config), n.Config, n.Runtime, n.Logs, n.Manifests}
	_, err := k.client.StorageV1().CSIDrivers().Create(t.Context(), &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: driverName},
		Spec: storagev1.CSIDriverSpec{AttachRequired: ptr.To(false)}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.client.CoreV1().ConfigMaps("default").Create(t.Context(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "config"}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Subject implements strike.Calls: calls are about a pod, or about a container, as
// "pod/container". A call of ExecSync has the name of what the command says.
func (k *killable) Subject(method string, request []byte) (subject, call string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch method {
	case "RunPodSandbox":
		r := decode(request, &runtimeapi.RunPodSandboxRequest{})
		return r.GetConfig().GetMetadata().GetName(), method
	case "StopPodSandbox":
		return k.podOf(decode(request, &runtimeapi.StopPodSandboxRequest{}).PodSandboxId), method
	case "RemovePodSandbox":
		return k.podOf(decode(request, &runtimeapi.RemovePodSandboxRequest{}).PodSandboxId), method
	case "PullImage":
		return decode(request, &runtimeapi.PullImageRequest{}).GetImage().GetImage(), method
	case "CreateContainer":
		r := decode(request, &runtimeapi.CreateContainerRequest{})
		return r.GetSandboxConfig().GetMetadata().GetName() + "/" + r.GetConfig().GetMetadata().GetName(), method
	case "StartContainer":
		return k.containers[decode(request, &runtimeapi.StartContainerRequest{}).ContainerId], method
	case "StopContainer":
		return k.containers[decode(request, &runtimeapi.StopContainerRequest{}).ContainerId], method
	case "RemoveContainer":
		return k.containers[decode(request, &runtimeapi.RemoveContainerRequest{}).ContainerId], method
	case "UpdateContainerResources":
		return k.containers[decode(request, &runtimeapi.UpdateContainerResourcesRequest{}).ContainerId], method
	case "ExecSync":
		r := decode(request, &runtimeapi.ExecSyncRequest{})
		return k.containers[r.ContainerId], r.Cmd[len(r.Cmd)-1]
	}
	return "", method
}

// Answered implements strike.Calls: it counts what the runtime has done.
func (k *killable) Answered(method string, request, answer []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch method {
	case "RunPodSandbox":
		k.pods[decode(answer, &runtimeapi.RunPodSandboxResponse{}).PodSandboxId] = decode(request, &runtimeapi.RunPodSandboxRequest{}).GetConfig().GetMetadata().GetName()
	case "CreateContainer":
		r := decode(request, &runtimeapi.CreateContainerRequest{})
		name := r.GetSandboxConfig().GetMetadata().GetName() + "/" + r.GetConfig().GetMetadata().GetName()
		k.containers[decode(answer, &runtimeapi.CreateContainerResponse{}).ContainerId] = name
		k.created[name]++
	case "StartContainer":
		k.started[k.containers[decode(request, &runtimeapi.StartContainerRequest{}).ContainerId]]++
	}
}

// podOf returns the name of the sandbox's pod; k.mu is held. The runtime is asked for one
// whose making it has not answered.
func (k *killable) podOf(id string) string {
	if k.pods[id] == "" {
		if r, err := k.runtime.PodSandboxStatus(k.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id}); err == nil {
			k.pods[id] = r.GetStatus().GetMetadata().GetName()
		}
	}
	return k.pods[id]
}

func decode[M proto.Message](text []byte, m M) M {
	if err := proto.Unmarshal(text, m); err != nil {
		panic(err)
	}
	return m
}

// aboutRequest names the requests by which the agent reports a pod, and its end.
func aboutRequest(r *http.Request, body []byte) (subject, call string) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/default/pods/")
	name, sub, _ := strings.Cut(rest, "/")
	switch {
	case !ok:
		return "", ""
	case r.Method == http.MethodDelete && sub == "":
		return name, "Delete"
	case r.Method == http.MethodPut && sub == "status":
		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if p, ok := obj.(*v1.Pod); err == nil && ok && podtest.Ready(p) {
			return name, "UpdateStatus, Ready"
		}
		return name, "UpdateStatus"
	}
	return "", ""
}

// driver is a CSI driver that binds the folder dir where a volume is staged, and that where
// it is published. A volume's ID is its pod's name.
type driver struct {
	csi.UnimplementedNodeServer
	csi.UnimplementedIdentityServer
	registration.UnimplementedRegistrationServer
	dir, socket string
}

// serveDriver serves the driver, and its registration, below the node's root.
func (k *killable) serveDriver(t testing.TB, dir, root string) {
	t.Helper()
	d := &driver{dir: dir, socket: filepath.Join(root, "plugins", driverName, "csi.sock")}
	s := grpc.NewServer(grpc.UnaryInterceptor(k.Interceptor(func(r any) string {
		if v, ok := r.(interface{ GetVolumeId() string }); ok {
			return v.GetVolumeId()
		}
		return ""
	})))
	csi.RegisterIdentityServer(s, d)
	csi.RegisterNodeServer(s, d)
	registration.RegisterRegistrationServer(s, d)
	for _, path := range []string{d.socket, filepath.Join(root, "plugins_registry", driverName+".sock")} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Dir(path), 0o755)); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = s.Serve(l) }()
	}
	t.Cleanup(s.Stop)
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: driverName, Endpoint: d.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (*driver) NotifyRegistrationStatus(context.Context, *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	return &registration.RegistrationStatusResponse{}, nil
}

func (*driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "node"}, nil
}

func (*driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{
		Type: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}}}}}, nil
}

func (d *driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	return &csi.NodeStageVolumeResponse{}, bindOnce(d.dir, r.StagingTargetPath)
}

func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return &csi.NodePublishVolumeResponse{}, bindOnce(r.StagingTargetPath, r.TargetPath)
}

func (*driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return &csi.NodeUnpublishVolumeResponse{}, unbind(r.TargetPath)
}

func (*driver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, unbind(r.StagingTargetPath)
}

func bindOnce(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), " "+target+" ") {
		return err
	}
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}

func unbind(target string) error {
	err := volume.Detach(target)
	if err == nil {
		err = os.Remove(target)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// run creates a pod with what has a phase of its own: volumes of several kinds, an init
// container, hooks and a probe. Its image is pulled anew if pulls is set.
func (k *killable) run(name string, pulls bool) {
	k.Helper()
	ctx := k.Context()
	claim := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PersistentVolumeClaimSpec{
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, StorageClassName: ptr.To(""), VolumeName: name,
		Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Mi")}}}}
	disk := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PersistentVolumeSpec{
		AccessModes: claim.Spec.AccessModes, Capacity: claim.Spec.Resources.Requests, ClaimRef: &v1.ObjectReference{Namespace: "default", Name: name},
		PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: name}}}}
	if _, err := k.client.CoreV1().PersistentVolumes().Create(ctx, disk, metav1.CreateOptions{}); err != nil {
		k.Fatal(err)
	}
	if _, err := k.client.CoreV1().PersistentVolumeClaims("default").Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		k.Fatal(err)
	}
	command := func(does string) []string { return []string{"/bin/demo", "echo", does} }
	exec := func(does string) v1.ProbeHandler {
		return v1.ProbeHandler{Exec: &v1.ExecAction{Command: command(does)}}
	}
	hook := func(does string) *v1.LifecycleHandler {
		return &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: command(does)}}
	}
	limit := func(cpu string) v1.ResourceRequirements {
		return v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1m")}, Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}}
	}
	p := sleeper(name)
	p.Labels = map[string]string{"faults": ""}
	p.Spec.InitContainers = []v1.Container{{Name: "init", Image: image, Args: []string{"echo", "first"}}}
	c := &p.Spec.Containers[0]
	c.Lifecycle = &v1.Lifecycle{PostStart: hook("postStart"), PreStop: hook("preStop")}
	c.ReadinessProbe = &v1.Probe{ProbeHandler: exec("probe"), PeriodSeconds: 2, TimeoutSeconds: 60, FailureThreshold: 100}
	c.Resources = limit("1")
	p.Spec.InitContainers[0].ImagePullPolicy, c.ImagePullPolicy = v1.PullIfNotPresent, v1.PullIfNotPresent
	if pulls {
		c.ImagePullPolicy = v1.PullAlways
	}
	p.Spec.Volumes = []v1.Volume{
		{Name: "disk", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: name}}},
		{Name: "config", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "config"}}}},
		{Name: "scratch", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
	}
	c.VolumeMounts = []v1.VolumeMount{{Name: "disk", MountPath: "/disk"}, {Name: "config", MountPath: "/config"}, {Name: "scratch", MountPath: "/scratch", SubPath: "part"}}
	k.create(p)
}

// delete deletes a pod; its claim and volume go with it.
func (k *killable) delete(name string) {
	k.Helper()
	k.deletePod(name)
	k.deleteDisk(name)
}

func (k *killable) deletePod(name string) {
	k.Helper()
	if err := k.client.CoreV1().Pods("default").Delete(k.Context(), name, metav1.DeleteOptions{}); err != nil {
		k.Fatal(err)
	}
}

// deleteDisk deletes the claim and the volume of a pod.
func (k *killable) deleteDisk(name string) {
	k.Helper()
	for _, err := range []error{k.client.CoreV1().PersistentVolumeClaims("default").Delete(k.Context(), name, metav1.DeleteOptions{}),
		k.client.CoreV1().PersistentVolumes().Delete(k.Context(), name, metav1.DeleteOptions{})} {
		if err != nil {
			k.Fatal(err)
		}
	}
}

// container returns the running container of that name of a pod, as the runtime has it. There
// must be one, in the only sandbox of the pod that is ready.
func (k *killable) container(pod, name string) (*runtimeapi.Container, error) {
	selector := map[string]string{"io.kubernetes.pod.name": pod}
	sandboxes, err := k.runtime.ListPodSandbox(k.Context(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: selector,
		State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}}})
	if err != nil {
		return nil, err
	}
	list, err := k.runtime.ListContainers(k.Context(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: selector,
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		return nil, err
	}
	if len(sandboxes.Items) != 1 || len(list.Containers) != 1 || list.Containers[0].PodSandboxId != sandboxes.Items[0].Id || list.Containers[0].GetMetadata().GetName() != name {
		return nil, fmt.Errorf("%s has %d sandboxes and %d containers that run: %v", pod, len(sandboxes.Items), len(list.Containers), list.Containers)
	}
	return list.Containers[0], nil
}

// crash kills the process of the pod's container.
func (k *killable) crash(pod string) {
	k.Helper()
	c, err := k.container(pod, "c")
	if err != nil {
		k.Fatal(err)
	}
	r, err := k.runtime.ContainerStatus(k.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: c.Id, Verbose: true})
	if err != nil {
		k.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(r.Info["info"]), &info); err != nil || info.Pid == 0 {
		k.Fatalf("the process of %s: %v, %v", c.Id, r.Info, err)
	}
	if err := syscall.Kill(info.Pid, syscall.SIGKILL); err != nil {
		k.Fatal(err)
	}
}

// processes returns the processes in the cgroups of the node's pods, or of one.
func (k *killable) processes(pod string) (out []string) {
	for _, pattern := range []string{"/sys/fs/cgroup/pids/", "/sys/fs/cgroup/"} { // of v1, and of v2
		_ = filepath.WalkDir(pattern+k.cgroup, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.Name() == "cgroup.procs" && strings.Contains(path, pod) {
				text, _ := os.ReadFile(path)
				out = append(out, strings.Fields(string(text))...)
			}
			return nil
		})
		if len(out) > 0 {
			break
		}
	}
	return out
}

// quotas returns the CPU quotas of the cgroups of a pod and its containers, in
// microseconds of 100 ms.
func (k *killable) quotas(pod string) (out []string) {
	for pattern, file := range map[string]string{"/sys/fs/cgroup/cpu/": "cpu.cfs_quota_us", "/sys/fs/cgroup/": "cpu.max"} { // of v1, and of v2
		_ = filepath.WalkDir(pattern+k.cgroup, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.Name() == file && strings.Contains(path, pod) {
				text, _ := os.ReadFile(path)
				out = append(out, append(strings.Fields(string(text)), "")[0])
			}
			return nil
		})
	}
	return out
}

// left returns what the node has of pods: in the runtime, on the machine, and in the node's
// folders. What is shared by all pods is in it, too.
func (k *killable) left() (harness.Traces, error) {
	out := harness.Network(k)
	ctx := k.Context()
	sandboxes, err := k.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	for _, s := range sandboxes.Items {
		out["sandbox of "+s.GetMetadata().GetName()+" "+s.Id] = true
	}
	containers, err := k.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	for _, c := range containers.Containers {
		out["container "+c.Labels["io.kubernetes.pod.name"]+"/"+c.GetMetadata().GetName()+" "+c.Id] = true
	}
	list, err := snapshots.NewSnapshotsClient(k.runtime.Conn()).List(metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "k8s.io"), &snapshots.ListSnapshotsRequest{Snapshotter: "overlayfs"})
	if err != nil {
		return nil, err
	}
	for {
		r, err := list.Recv()
		if err != nil {
			break
		}
		for _, s := range r.Info {
			if s.Kind == snapshots.Kind_ACTIVE {
				out["snapshot "+s.Name] = true
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, k.data+"/") || strings.HasPrefix(at, k.state+"/") {
			out["mount "+at] = true
		}
	}
	for _, pid := range k.processes("") {
		out["process "+pid] = true
	}
	shims, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range shims {
		if text, _ := os.ReadFile(f); strings.Contains(string(text), "containerd-shim") && strings.Contains(string(text), k.state) {
			out["shim "+f] = true
		}
	}
	for what, pattern := range map[string]string{
		"address":           filepath.Join(k.data, "node/cni/addresses/*/[0-9]*.*"),
		"network namespace": filepath.Join(k.state, "state/*/netns/*"),
		"task":              filepath.Join(k.state, "state/io.containerd.runtime.v2.task/*/*"),
		"folder of a pod":   filepath.Join(k.data, "node/pods/*"),
		"logs of a pod":     filepath.Join(k.logs, "*"),
		"staged volume":     filepath.Join(k.data, "node/plugins/kubernetes.io/csi/*/*"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			out[what+" "+f] = true
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		roots, _ := filepath.Glob(pattern + k.cgroup)
		for _, root := range roots {
			_ = filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					out["cgroup "+path] = true
				}
				return nil
			})
		}
	}
	return out, nil
}

// clean waits until the node has nothing that it did not have before.
func (k *killable) clean(before harness.Traces) {
	k.Helper()
	harness.Succeeds(k, "the end of what pods had", func() error {
		now, err := k.left()
		if err != nil {
			return err
		}
		if more := before.More(now); len(more) > 0 {
			return fmt.Errorf("%d are left:\n%s", len(more), strings.Join(more, "\n"))
		}
		return nil
	})
}

// killRuntime kills the runtime, and returns when another has taken its place.
func (k *killable) killRuntime() {
	k.Helper()
	file := filepath.Join(k.state, "containerd.pid")
	pid := func() int {
		text, err := os.ReadFile(file)
		if err != nil {
			k.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			k.Fatal(err)
		}
		return n
	}
	old := pid()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		k.Fatal(err)
	}
	harness.Eventually(k, "another containerd", func() bool { return pid() != old })
	harness.Succeeds(k, "an answer of it", func() error {
		_, err := k.runtime.ListContainers(k.Context(), &runtimeapi.ListContainersRequest{})
		return err
	})
}

// restartAgent kills the agent and starts it again.
func (k *killable) restartAgent() {
	k.Helper()
	k.agent.Kill()
	k.agent.Start()
}

// phase is a call of a pod's life; of is appended to the pod's name in its subject.
type phase struct{ call, of string }

var (
	starting = []phase{{"NodeStageVolume", ""}, {"NodePublishVolume", ""}, {"RunPodSandbox", ""}, {"CreateContainer", "/init"}, {"StartContainer", "/init"},
		{"CreateContainer", "/c"}, {"StartContainer", "/c"}, {"postStart", "/c"}, {"probe", "/c"}, {"UpdateStatus, Ready", ""}}
	living = []phase{{"UpdateStatus", ""}, {"CreateContainer", "/c"}, {"StartContainer", "/c"}, {"postStart", "/c"}, {"RemoveContainer", "/c"}, {"UpdateContainerResources", "/c"}}
	ending = []phase{{"preStop", "/c"}, {"StopContainer", "/c"}, {"UpdateStatus", ""}, {"StopPodSandbox", ""}, {"NodeUnpublishVolume", ""}, {"NodeUnstageVolume", ""},
		{"Delete", ""}, {"RemovePodSandbox", ""}}
)

// points returns the moments before and after each phase, each of another pod.
func points(prefix string, phases []phase) (out []strike.Point) {
	for i, p := range phases {
		for j, after := range []bool{false, true} {
			out = append(out, strike.Point{Subject: fmt.Sprintf("%s%02d%s", prefix, 2*i+j, p.of), Call: p.call, After: after})
		}
	}
	return out
}

// pull is the point of a pod's pull: pulls are of images, not pods.
func pull(after bool) strike.Point {
	return strike.Point{Subject: image, Call: "PullImage", After: after}
}

// TestKilledInEachPhase kills the agent, and then the runtime, in the middle of each phase
// of a pod's life: before the runtime, the CSI driver or the API server has a call, and after
// it has answered, with the answer lost. Many pods are held at once, each at another point.
// Afterwards each pod is as if nothing had happened: no container has run twice, none that
// has ended is lost, and the pods' end leaves nothing.
func TestKilledInEachPhase(t *testing.T) {
	k := startKillable(t)
	k.run("warm", true) // the first pod makes what all share
	k.pod("warm", ready)
	k.delete("warm")
	k.gone("faults")
	var before harness.Traces
	harness.Succeeds(t, "the end of the first pod", func() (err error) {
		if before, err = k.left(); err != nil {
			return err
		}
		for what := range before {
			if strings.HasPrefix(what, "sandbox") || strings.HasPrefix(what, "folder") || strings.HasPrefix(what, "process") {
				return errors.New(what)
			}
		}
		return nil
	})
	t.Run("Agent", func(t *testing.T) { k.in(t).phases("a", before, func() { k.restartAgent() }) })
	t.Run("Runtime", func(t *testing.T) { k.in(t).phases("r", before, nil) })
	t.Run("Torn", func(t *testing.T) { k.in(t).torn(before) })
	for i := range *faultRounds {
		t.Run(fmt.Sprintf("Random/%d", i), func(t *testing.T) { k.in(t).random(i, before) })
	}
}

// in returns the node for a part of the test.
func (k *killable) in(t *testing.T) *killable {
	e := *k.env
	e.TB = t
	k.env = &e
	return k
}

// strikeAt has the calls held at the points, and then kills the agent, or the runtime
// if kill is nil. The calls that the runtime has are in its hands when it is killed.
func (k *killable) strikeAt(points []strike.Point, begin func(), kill func()) {
	k.Helper()
	k.Arm(points...)
	begin()
	ctx, cancel := context.WithTimeout(k.Context(), harness.Patience)
	defer cancel()
	if err := k.Wait(ctx); err != nil {
		k.Error(err)
	}
	if kill != nil {
		kill()
		k.Release(true)
		return
	}
	k.Release(true)
	k.killRuntime()
}

// phases strikes at all phases of pods whose names begin with prefix.
func (k *killable) phases(prefix string, before harness.Traces, kill func()) {
	agent := kill != nil
	start := points(prefix, starting)
	begin := append(slices.Clone(start), pull(false))
	names := make([]string, len(start))
	for i := range names {
		names[i] = fmt.Sprintf("%s%02d", prefix, i)
	}
	k.strikeAt(begin, func() {
		for _, name := range names {
			k.run(name, false)
		}
		k.run(prefix+"pull", true)
	}, kill)
	names = append(names, prefix+"pull")
	crashes := map[string]int{}
	for _, name := range names {
		k.check(name, 0, agent)
	}

	// What a living pod goes through: its container ends twice, and is given more.
	life := points(prefix, living)
	alive := names[:len(life)]
	for i, at := range life {
		if at.Call == "RemoveContainer" {
			crashes[names[i]]++
			k.crash(names[i])
			k.check(names[i], crashes[names[i]], agent)
		}
	}
	k.strikeAt(append(life, pull(true)), func() {
		for i, at := range life {
			if at.Call == "UpdateContainerResources" {
				k.resizeTo(names[i], "900m")
				continue
			}
			crashes[names[i]]++
			k.crash(names[i])
		}
		crashes[prefix+"pull"]++
		k.crash(prefix + "pull")
	}, kill)
	for i, name := range alive {
		p := k.check(name, crashes[name], agent)
		if life[i].Call == "UpdateContainerResources" {
			k.pod(name, func(p *v1.Pod) bool {
				r := p.Status.ContainerStatuses[0].Resources
				return r != nil && r.Limits.Cpu().String() == "900m"
			})
			if got := k.quotas(string(p.UID)); !slices.Contains(got, "90000") || slices.Contains(got, "100000") {
				k.Errorf("the CPU quotas of %s and its containers are %v", name, got)
			}
		}
	}
	k.check(prefix+"pull", crashes[prefix+"pull"], agent)

	k.strikeAt(points(prefix, ending), func() {
		for _, name := range names {
			k.delete(name)
		}
	}, kill)
	k.gone("faults")
	k.clean(before)
}

// check waits until the pod is Ready after its container was killed that often, and checks
// that each container has run as often as it should have.
func (k *killable) check(name string, crashes int, agent bool) *v1.Pod {
	k.Helper()
	k.pod(name, func(p *v1.Pod) bool {
		s := p.Status.ContainerStatuses
		return ready(p) && len(s) > 0 && int(s[0].RestartCount) >= crashes
	})
	var c *runtimeapi.Container
	harness.Succeeds(k, "the container of "+name, func() (err error) {
		c, err = k.container(name, "c")
		return err
	})
	p := k.pod(name, func(p *v1.Pod) bool { // which reports the container that runs
		return ready(p) && p.Status.ContainerStatuses[0].ContainerID == "containerd://"+c.Id
	})
	harness.Succeeds(k, "only the processes of the sandbox and the container of "+name, func() error { // a probe's may run
		if got := k.processes(string(p.UID)); len(got) != 2 {
			return fmt.Errorf("the processes %v", got)
		}
		return nil
	})
	if t := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; crashes > 0 && (t == nil || t.ExitCode != 137) {
		k.Errorf("%s: the last end of its container, which was killed, is %+v", name, t)
	}
	if t := p.Status.InitContainerStatuses[0].State.Terminated; t == nil || t.ExitCode != 0 {
		k.Errorf("%s: the end of its init container is %+v", name, t)
	}
	if !agent { // an answer of a runtime that is killed does not say what has been done
		return p
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for of, runs := range map[string]int{"init": 1, "c": 1 + crashes} {
		if got := k.started[name+"/"+of]; got != runs {
			k.Errorf("%s of %s was started %d times, and should have been %d times", of, name, got, runs)
		}
	}
	if made, count := k.created[name+"/c"], int(p.Status.ContainerStatuses[0].RestartCount); made != count+1 {
		k.Errorf("%s has had %d containers, and its restart count is %d", name, made, count)
	}
	return p
}

// resizeTo changes the CPU limit of the pod's container.
func (k *killable) resizeTo(name, cpu string) {
	k.Helper()
	p, err := k.client.CoreV1().Pods("default").Get(k.Context(), name, metav1.GetOptions{})
	if err != nil {
		k.Fatal(err)
	}
	p.Spec.Containers[0].Resources.Limits[v1.ResourceCPU] = resource.MustParse(cpu)
	if _, err := k.client.CoreV1().Pods("default").UpdateResize(k.Context(), name, p, metav1.UpdateOptions{}); err != nil {
		k.Fatal(err)
	}
}

// random kills the agent and the runtime at random moments of the life of ten pods.
func (k *killable) random(seed int, before harness.Traces) {
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	pause := func(most time.Duration) {
		select {
		case <-time.After(time.Duration(r.Int64N(int64(most)))):
		case <-k.Context().Done():
		}
	}
	strike := func() {
		for range 2 {
			pause(4 * time.Second)
			if r.IntN(2) == 0 {
				k.restartAgent()
			} else {
				k.killRuntime()
			}
		}
	}
	var names []string
	for i := range 10 {
		names = append(names, fmt.Sprintf("x%d-%d", seed, i))
		k.run(names[i], i < 2)
	}
	strike()
	for _, name := range names {
		k.check(name, 0, false)
	}
	for _, name := range names {
		k.crash(name)
	}
	strike()
	for _, name := range names {
		k.check(name, 1, false)
	}
	for _, name := range names {
		k.delete(name)
	}
	strike()
	k.gone("faults")
	k.clean(before)
}

// torn damages all files in which the agent keeps state, as a loss of power may leave them,
// while no agent runs. The agent starts, the pods go on, and leave nothing at their end.
func (k *killable) torn(before harness.Traces) {
	names := []string{"torn0", "torn1"}
	for _, name := range names {
		k.run(name, false)
	}
	running := map[string]string{}
	for _, name := range names {
		p := k.check(name, 0, true)
		running[name] = p.Status.ContainerStatuses[0].ContainerID
	}
	for _, text := range []string{"", "\x00\x00\x00\x00\x00\x00", "{\"Images\":{\"sha256:"} {
		k.agent.Kill()
		k.damage(text)
		k.agent.Start()
		for _, name := range names {
			if p := k.check(name, 0, true); p.Status.ContainerStatuses[0].ContainerID != running[name] {
				k.Errorf("with files that have %q, %s has another container", text, name)
			}
		}
		fresh := fmt.Sprintf("fresh%d", len(names)-2)
		names = append(names, fresh)
		k.run(fresh, true)
		running[fresh] = k.check(fresh, 0, true).Status.ContainerStatuses[0].ContainerID
	}
	k.agent.Kill()
	k.damage("")
	for _, name := range names {
		k.deletePod(name)
	}
	k.agent.Start()
	k.gone("faults")
	for _, name := range names { // the PersistentVolumes are all that tells what was mounted
		k.deleteDisk(name)
	}
	k.clean(before)
}

// damage overwrites the files of the agent's state.
func (k *killable) damage(text string) {
	k.Helper()
	var done []string
	root := filepath.Join(k.data, "node")
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case name == "containerd" || name == "cni" || name == "hosts" || e.IsDir() && strings.HasPrefix(name, "pods/") && strings.Contains(name, "/kubernetes.io~") && !strings.Contains(name, "~csi"):
			return filepath.SkipDir // of the runtime, and of the pods
		case e.Name() == "mount" && strings.Contains(name, "~csi"), strings.HasSuffix(name, "/globalmount"):
			return filepath.SkipDir // a volume's content
		case e.Type().IsRegular() && !strings.HasSuffix(name, ".damaged"):
			done = append(done, name)
			return os.WriteFile(path, []byte(text), 0o600)
		}
		return nil
	})
	if err != nil {
		k.Fatal(err)
	}
	k.Logf("damaged: %s", strings.Join(done, ", "))
	for _, name := range []string{"cpu_manager_state", "memory_manager_state", "image_pulls.json", "root-dir"} {
		if !slices.Contains(done, name) {
			k.Errorf("%s was not there to be damaged: %v", name, done)
		}
	}
}
