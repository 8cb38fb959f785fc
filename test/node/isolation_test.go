package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// sleeper returns a pod that does nothing, and ends at once when asked to.
func sleeper(name string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](1),
		Containers: []v1.Container{{Name: "c", Image: image, Args: []string{"sleep", "1000"}}}}}
}

func (e *env) hostNetwork() {
	p := sleeper("host")
	p.Spec.HostNetwork = true
	e.create(p)
	p = e.pod("host", ready)
	if p.Status.PodIP == "" || p.Status.PodIP != p.Status.HostIP {
		e.Errorf("the pod's address is %q, its node's %q", p.Status.PodIP, p.Status.HostIP)
	}
	name, err := os.Hostname()
	if err != nil {
		e.Fatal(err)
	}
	if got := strings.TrimSpace(e.exec("host", "c", "", "/bin/demo", "cat", "/proc/sys/kernel/hostname")); got != name {
		e.Errorf("the pod's host name is %q, its machine's %q", got, name)
	}
	e.remove("host")
}

// setting reads a file of the pod's cgroup, by its name on cgroup v1 or on v2.
func (e *env) setting(p *v1.Pod, v1File, v2File string) string {
	e.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/*/*/kubepods/pod%s/" + v1File, "/sys/fs/cgroup/*/kubepods/pod%s/" + v2File} {
		if found, _ := filepath.Glob(fmt.Sprintf(pattern, p.UID)); len(found) > 0 {
			b, err := os.ReadFile(found[0])
			if err != nil {
				e.Fatal(err)
			}
			return strings.TrimSpace(string(b))
		}
	}
	e.Fatalf("the pod has no cgroup with %s or %s", v1File, v2File)
	return ""
}

// cgroups checks that a pod's cgroup has the sums of its containers' requests and
// limits, also after a resize.
func (e *env) cgroups() {
	list := func(cpu, memory string) v1.ResourceList {
		return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
	}
	p := sleeper("limited")
	p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: list("500m", "64Mi"), Limits: list("500m", "64Mi")}
	e.create(p)
	p = e.pod("limited", ready)
	if got := e.setting(p, "cpu.shares", "cpu.weight"); got != "512" && got != "59" {
		e.Errorf("the pod's share of the CPUs: %s", got)
	}
	quota := func() string { return strings.TrimSuffix(e.setting(p, "cpu.cfs_quota_us", "cpu.max"), " 100000") }
	if got := quota(); got != "50000" {
		e.Errorf("the pod's quota: %s", got)
	}
	if got := e.setting(p, "memory.limit_in_bytes", "memory.max"); got != fmt.Sprint(64<<20) {
		e.Errorf("the pod's memory: %s", got)
	}
	p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: list("250m", "64Mi"), Limits: list("250m", "64Mi")}
	if _, err := e.client.CoreV1().Pods("default").UpdateResize(e.Context(), p.Name, p, metav1.UpdateOptions{}); err != nil {
		e.Fatal(err)
	}
	e.pod("limited", func(p *v1.Pod) bool {
		for _, c := range p.Status.Conditions {
			if c.Type == v1.PodResizeInProgress || c.Type == v1.PodResizePending {
				return false
			}
		}
		return p.Status.ContainerStatuses[0].Resources.Limits.Cpu().String() == "250m"
	})
	if got := quota(); got != "25000" {
		e.Errorf("the pod's quota after a resize: %s", got)
	}
	e.remove("limited")
}

// tokens checks that a pod's token is in memory, for the user of the pod alone.
func (e *env) tokens() {
	p := sleeper("user")
	p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: ptr.To[int64](1000)}
	e.create(p)
	p = e.pod("user", ready)
	const path = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	if got := e.exec("user", "c", "", "/bin/demo", "cat", path); strings.Count(got, ".") != 2 {
		e.Errorf("the pod reads its token as %q", got)
	}
	pattern := filepath.Join(filepath.Dir(e.logs), "node", "pods", string(p.UID), "volumes", "kubernetes.io~projected", "*", "token")
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		e.Fatalf("%s: %v, %v", pattern, found, err)
	}
	info, err := os.Stat(found[0])
	if err != nil {
		e.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm() != 0o600 || owner != 1000 {
		e.Errorf("the token's mode is %v, its owner %d", info.Mode(), owner)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(found[0], &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		e.Errorf("the token is on a file system of type %#x (%v)", fs.Type, err)
	}
	e.remove("user")
}

// restartRules checks that a container of a pod that runs once is started again
// by its own rule.
func (e *env) restartRules() {
	p := sleeper("rules")
	p.Spec.RestartPolicy = v1.RestartPolicyNever
	c := &p.Spec.Containers[0]
	c.Args = []string{"fail"}
	c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyNever)
	c.RestartPolicyRules = []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestart,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{1}}}}
	e.create(p)
	e.pod("rules", func(p *v1.Pod) bool {
		if p.Status.Phase == v1.PodFailed {
			e.Fatalf("the pod has failed: %+v", p.Status)
		}
		s := p.Status.ContainerStatuses
		return len(s) > 0 && s[0].RestartCount > 0
	})
	e.remove("rules")
}

// subPath checks that a file and a new folder of volumes are mounted, and a path
// that leads out of its volume is not.
func (e *env) subPath() {
	if _, err := e.client.CoreV1().ConfigMaps("default").Create(e.Context(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "parts"}, Data: map[string]string{"k": "value"}}, metav1.CreateOptions{}); err != nil {
		e.Fatal(err)
	}
	dir := e.TempDir()
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		e.Fatal(err)
	}
	p := sleeper("parts")
	p.Spec.Volumes = []v1.Volume{
		{Name: "cm", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "parts"}}}},
		{Name: "empty", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		{Name: "host", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: dir}}},
	}
	p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "cm", MountPath: "/file", SubPath: "k"}, {Name: "empty", MountPath: "/new", SubPath: "a/b"}}
	swapped := p.DeepCopy()
	e.create(p)
	e.pod("parts", ready)
	if got := e.exec("parts", "c", "", "/bin/demo", "cat", "/file"); got != "value" {
		e.Errorf("the file: %q", got)
	}
	if got := e.exec("parts", "c", "", "/bin/demo", "ls", "/new"); got != "" {
		e.Errorf("the new folder: %q", got)
	}
	e.remove("parts")
	swapped.Name = "swapped"
	swapped.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "host", MountPath: "/x", SubPath: "out"}}
	e.create(swapped)
	e.pod("swapped", func(p *v1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) > 0 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CreateContainerConfigError" && strings.Contains(s[0].State.Waiting.Message, "leads out of its volume")
	})
	e.remove("swapped")
}
