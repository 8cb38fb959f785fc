package node_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realnode"
)

// sleepingPod returns a pod that waits.
func sleepingPod(name string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](1),
		Containers: []v1.Container{{Name: "c", Image: image, Args: []string{"sleep", "1000"}}}}}
}

// evictions checks that a pod is evicted if it writes more than the limit of its
// emptyDir or its container, and that one within its limits is not.
func (e *env) evictions() {
	volume := func(name string) *v1.Pod {
		p := sleepingPod(name)
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("1Mi"))}}}}
		p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/x"}}
		return p
	}
	within, beyond, log := volume("within"), volume("beyond"), sleepingPod("log")
	log.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse("64Ki")}
	write := func(p *v1.Pod, size int) {
		dirs, _ := filepath.Glob(filepath.Join(filepath.Dir(e.logs), "node", "pods", string(p.UID), "volumes", "*empty-dir", "v"))
		if len(dirs) != 1 {
			e.Fatalf("volumes: %v", dirs)
		}
		if err := os.WriteFile(filepath.Join(dirs[0], "f"), make([]byte, size), 0o644); err != nil {
			e.Fatal(err)
		}
	}
	for _, p := range []*v1.Pod{within, beyond, log} {
		e.create(p)
	}
	for _, p := range []*v1.Pod{within, beyond, log} {
		*p = *e.pod(p.Name, ready)
	}
	write(within, 512<<10)
	write(beyond, 2<<20)
	dir := filepath.Join(e.logs, "default_log_"+string(log.UID), "c")
	if err := os.WriteFile(filepath.Join(dir, "old.log"), make([]byte, 256<<10), 0o644); err != nil {
		e.Fatal(err)
	}
	for name, want := range map[string]string{
		"beyond": `Usage of EmptyDir volume "v" exceeds the limit "1Mi". `,
		"log":    "Pod ephemeral local storage usage exceeds the total limit of containers 64Ki. ",
	} {
		p := e.pod(name, func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })
		if p.Status.Reason != "Evicted" || p.Status.Message != want {
			e.Errorf("%s: %s %q, want Evicted %q", name, p.Status.Reason, p.Status.Message, want)
		}
		if s := p.Status.ContainerStatuses[0].State; s.Terminated == nil {
			e.Errorf("%s: the pod has failed, and its container is %+v", name, s)
		}
	}
	if p := e.pod("within", func(*v1.Pod) bool { return true }); !ready(p) {
		e.Errorf("the pod within its limits: %s %s", p.Status.Phase, p.Status.Message)
	}
}

// raw returns an answer of the node's server, through the API server.
func (e *env) raw(path string) string {
	e.Helper()
	b, err := e.client.CoreV1().RESTClient().Get().Resource("nodes").Name("node").SubResource("proxy").Suffix(path).DoRaw(e.Context())
	if err != nil {
		e.Fatalf("%s: %v", path, err)
	}
	return string(b)
}

// endpoints checks that the node's server measures a pod that uses memory, disk
// and CPU.
func (e *env) endpoints() {
	p := sleepingPod("measured")
	p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}
	p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/x"}}
	p.Spec.Containers[0].ReadinessProbe = &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"/bin/demo", "echo", "yes"}}}}
	e.create(p)
	p = e.pod("measured", ready)
	if got := e.raw("healthz"); got != "ok" {
		e.Errorf("healthz: %s", got)
	}
	for path, want := range map[string][]string{
		"pods":         {`"name":"measured"`},
		"runningpods/": {`"name":"measured"`},
		"configz":      {`"evictionHard":{`, `"memory.available":"100Mi"`, `"enforceNodeAllocatable":["pods"]`},
		"metrics": {"kubelet_running_pods", `kubelet_runtime_operations_total{operation_type="run_podsandbox"}`, `kubelet_node_name{node="node"} 1`,
			`kubelet_desired_pods{static=""}`, `kubelet_active_pods{static="true"}`, "kubelet_mirror_pods", `kubelet_working_pods{config="desired",lifecycle="sync",static=""}`,
			`kubelet_restarted_pods_total{static="true"}`, "kubelet_orphan_pod_cleaned_volumes 0", "kubelet_orphan_pod_cleaned_volumes_errors 0", "kubelet_managed_ephemeral_containers",
			`volume_manager_total_volumes{plugin_name="kubernetes.io/empty-dir",state="actual_state_of_world"}`, `csi_operations_seconds_count{driver_name="local.csi.keelson.dev",grpc_status_code="OK",method_name="/csi.v1.Node/NodeGetInfo",migrated="false"}`,
			`storage_operation_duration_seconds_count{migrated="false",operation_name="volume_mount",status="success",volume_plugin="kubernetes.io/empty-dir"}`, "kubernetes_build_info{"},
		"metrics/slis":     {`kubernetes_healthcheck{name="ping",type="healthz"} 1`},
		"metrics/resource": {"node_cpu_usage_seconds_total", `pod_memory_working_set_bytes{namespace="default",pod="measured"}`, `container_cpu_usage_seconds_total{container="c",namespace="default",pod="measured"}`, "resource_scrape_error 0"},
		"metrics/cadvisor": {`container_memory_working_set_bytes{container="c",id="/`, `container_network_receive_bytes_total{container="",id="/`, "machine_cpu_cores", "container_scrape_error 0"},
		"metrics/probes":   {`prober_probe_total{container="c",namespace="default",pod="measured",pod_uid="` + string(p.UID) + `",probe_type="Readiness",result="successful"}`},
	} {
		got := e.raw(path)
		for _, w := range want {
			if !strings.Contains(got, w) {
				e.Errorf("%s lacks %s", path, w)
			}
		}
	}
	harness.Eventually(e, "stats of the pod", func() bool {
		var s statsapi.Summary
		if err := json.Unmarshal([]byte(e.raw("stats/summary")), &s); err != nil {
			e.Fatal(err)
		}
		for _, st := range s.Pods {
			if st.PodRef.Name != "measured" || len(st.Containers) != 1 {
				continue
			}
			c := st.Containers[0]
			// The runtime measures the disk usage of containers every ten seconds.
			return ptr.Deref(st.Memory.WorkingSetBytes, 0) > 0 && ptr.Deref(c.Memory.WorkingSetBytes, 0) > 0 && ptr.Deref(c.CPU.UsageCoreNanoSeconds, 0) > 0 &&
				c.Rootfs != nil && c.Logs != nil && len(st.VolumeStats) > 0 && st.EphemeralStorage != nil && st.Network != nil && st.Network.Name == "eth0" &&
				s.Node.Fs != nil && s.Node.Runtime != nil && s.Node.Rlimit != nil && len(s.Node.SystemContainers) == 2
		}
		return false
	})
}

// TestPressure checks that a node that is short of process IDs reports it, is
// tainted, refuses pods, and keeps its static ones.
func TestPressure(t *testing.T) {
	n := realnode.Start(t, agent.Options{Eviction: eviction.Settings{Hard: map[string]string{"pid.available": "1Ti"}},
		KubeReserved: v1.ResourceList{v1.ResourceMemory: resource.MustParse("256Mi")}})
	e := &env{TB: t, client: kubernetes.NewForConfigOrDie(n.Config), cfg: n.Config, runtime: n.Runtime, logs: n.Logs}
	manifest(t, n.Manifests, "keep", "1")
	harness.Eventually(t, "the pressure and its taint", func() bool {
		node, err := e.client.CoreV1().Nodes().Get(t.Context(), "node", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if c, a := node.Status.Capacity[v1.ResourceMemory], node.Status.Allocatable[v1.ResourceMemory]; c.Value()-a.Value() < 256<<20 {
			t.Fatalf("memory: %v allocatable of %v", a, c)
		}
		pressure, tainted := false, false
		for _, c := range node.Status.Conditions {
			pressure = pressure || c.Type == v1.NodePIDPressure && c.Status == v1.ConditionTrue && c.Reason == "KubeletHasInsufficientPID"
		}
		for _, t := range node.Spec.Taints {
			tainted = tainted || t.Key == v1.TaintNodePIDPressure
		}
		return pressure && tainted
	})
	p := sleepingPod("late")
	p.Spec.NodeName = "node"
	e.create(p)
	p = e.pod("late", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })
	if p.Status.Reason != "Evicted" || p.Status.Message != "Pod was rejected: The node had condition: [PIDPressure]. " {
		t.Errorf("%s: %s", p.Status.Reason, p.Status.Message)
	}
	e.pod("keep-node", ready)
}

// manifest writes the manifest of a static pod, which sleeps.
func manifest(t testing.TB, dir, name, version string) {
	t.Helper()
	p := sleepingPod(name)
	p.Labels = map[string]string{"version": version}
	manifestOf(t, dir, p)
}

func manifestOf(t testing.TB, dir string, p *v1.Pod) {
	t.Helper()
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, p.Name+".json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// staticPods checks that the pod of a manifest runs and has a mirror pod, which
// is created again when it is deleted, follows the manifest, and is deleted with
// it.
func (e *env) staticPods() {
	manifest(e, e.manifests, "fixed", "1")
	first := e.pod("fixed-node", ready)
	if err := e.client.CoreV1().Pods("default").Delete(e.Context(), "fixed-node", metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}
	again := e.pod("fixed-node", func(p *v1.Pod) bool { return p.UID != first.UID && ready(p) })
	if a, b := first.Status.ContainerStatuses[0].ContainerID, again.Status.ContainerStatuses[0].ContainerID; a != b {
		e.Errorf("the deletion of the mirror has restarted the container: %s, then %s", a, b)
	}
	manifest(e, e.manifests, "fixed", "2")
	next := e.pod("fixed-node", func(p *v1.Pod) bool { return p.Labels["version"] == "2" && ready(p) })
	if a, b := again.Status.ContainerStatuses[0].ContainerID, next.Status.ContainerStatuses[0].ContainerID; a == b {
		e.Errorf("the changed manifest has the same container")
	}
	if err := os.Remove(filepath.Join(e.manifests, "fixed.json")); err != nil {
		e.Fatal(err)
	}
	harness.Eventually(e, "the end of the mirror", func() bool {
		list, err := e.client.CoreV1().Pods("default").List(e.Context(), metav1.ListOptions{FieldSelector: "metadata.name=fixed-node"})
		return err == nil && len(list.Items) == 0
	})
}

// preemption checks that a static pod for which the node has no CPUs left is given those of another pod.
func (e *env) preemption() {
	node, err := e.client.CoreV1().Nodes().Get(e.Context(), "node", metav1.GetOptions{})
	if err != nil {
		e.Fatal(err)
	}
	most := v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(node.Status.Allocatable.Cpu().MilliValue()*3/4, resource.DecimalSI)}
	victim := sleepingPod("lower")
	victim.Spec.NodeName, victim.Spec.TerminationGracePeriodSeconds = "node", ptr.To[int64](2)
	victim.Spec.Containers[0].Resources.Requests = most
	e.create(victim)
	e.pod("lower", ready)
	p := sleepingPod("critical")
	p.Spec.Containers[0].Resources.Requests = most
	manifestOf(e, e.manifests, p)
	e.pod("critical-node", ready)
	got := e.pod("lower", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })
	if got.Status.Reason != "Preempting" || got.Status.Message != "Preempted in order to admit critical pod" {
		e.Errorf("%s: %s", got.Status.Reason, got.Status.Message)
	}
	harness.Eventually(e, "the event", func() bool {
		list, err := e.client.CoreV1().Events("default").List(e.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=lower,reason=Preempting"})
		return err == nil && len(list.Items) == 1 && list.Items[0].Type == v1.EventTypeWarning
	})
	if got := e.raw("metrics"); !strings.Contains(got, `kubelet_preemptions{preemption_signal="cpu"} 1`) {
		e.Error("the preemption is not counted")
	}
	if err := errors.Join(os.Remove(filepath.Join(e.manifests, "critical.json")), e.client.CoreV1().Pods("default").Delete(e.Context(), "lower", metav1.DeleteOptions{})); err != nil {
		e.Fatal(err)
	}
}
