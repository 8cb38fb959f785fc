package conformance

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/test/harness"
)

// share holds a container's requests and limits: CPU in thousandths, memory in
// MiB; 0 means none.
type share struct{ cpu, cpuLimit, memory, memoryLimit int64 }

func (s share) resources() v1.ResourceRequirements {
	list := func(cpu, memory int64) v1.ResourceList {
		l := v1.ResourceList{}
		if cpu > 0 {
			l[v1.ResourceCPU] = *resource.NewMilliQuantity(cpu, resource.DecimalSI)
		}
		if memory > 0 {
			l[v1.ResourceMemory] = *resource.NewQuantity(memory<<20, resource.BinarySI)
		}
		return l
	}
	return v1.ResourceRequirements{Requests: list(s.cpu, s.memory), Limits: list(s.cpuLimit, s.memoryLimit)}
}

// sized returns a pod with a container of each share, c1 and so on.
func (t *T) sized(shares []share) *v1.Pod {
	p := t.script("p", "")
	p.Spec.Containers = nil
	for i, s := range shares {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: fmt.Sprintf("c%d", i+1), Image: t.Busybox,
			Command: []string{"sh", "-c", "trap exit TERM; sleep 1000 & wait"}, Resources: s.resources()})
	}
	return p
}

// has waits until the containers run with these shares, by the pod's status and by
// their cgroups, not having been restarted.
func (t *T) has(shares []share) {
	t.Helper()
	t.pod("p", func(p *v1.Pod) error {
		if len(p.Status.ContainerStatuses) != len(shares) {
			return fmt.Errorf("no status yet")
		}
		for _, c := range p.Status.Conditions {
			if c.Type == v1.PodResizePending || c.Type == v1.PodResizeInProgress {
				return fmt.Errorf("%+v", c)
			}
		}
		for i, s := range p.Status.ContainerStatuses {
			// A container with a limit and no request has the limit as its request.
			want := p.Spec.Containers[i].Resources
			if s.State.Running == nil || s.RestartCount > 0 || s.Resources == nil || !equality.Semantic.DeepEqual(*s.Resources, want) || !equality.Semantic.DeepEqual(s.AllocatedResources, want.Requests) {
				return fmt.Errorf("want %+v, got %+v", want, s)
			}
		}
		return nil
	})
	for i, s := range shares {
		if want, got := s.limits(), t.limits(fmt.Sprintf("c%d", i+1)); want != got {
			t.Errorf("the limits of container c%d are %s, want %s", i+1, got, want)
		}
	}
}

// limits returns the share's limits as they are in a cgroup: the quota in a period
// of 100 ms, in microseconds, and the bytes.
func (s share) limits() string {
	cpu, memory := "none", "none"
	if s.cpuLimit > 0 {
		cpu = fmt.Sprint(max(s.cpuLimit*100, 1000))
	}
	if s.memoryLimit > 0 {
		memory = fmt.Sprint(s.memoryLimit << 20)
	}
	return cpu + " " + memory
}

// limits reads the limits of a container's cgroup, of either version.
func (t *T) limits(container string) string {
	t.Helper()
	out := t.inContainer("p", container, "sh", "-c",
		"cd /sys/fs/cgroup; if test -e cpu.max; then cut -d ' ' -f 1 cpu.max; cat memory.max; else cat cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes; fi")
	f := strings.Fields(out)
	if len(f) != 2 {
		t.Fatalf("limits: %s", out)
	}
	for i := range f {
		if f[i] == "max" || f[i] == "-1" || len(f[i]) == len("9223372036854771712") {
			f[i] = "none"
		}
	}
	return f[0] + " " + f[1]
}

// resizes returns a test that makes a pod of the shares before, resizes it to those
// after, and back where that is allowed.
func resizes(before, after []share, back bool) func(*T) {
	return func(t *T) {
		t.makePod(t.sized(before))
		t.has(before)
		to := [][]share{after}
		if back {
			to = append(to, before)
		}
		for _, shares := range to {
			var containers []dict
			for i, s := range shares {
				containers = append(containers, dict{"name": fmt.Sprintf("c%d", i+1), "resources": s.resources()})
			}
			got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), "p", types.StrategicMergePatchType, patchOf(dict{"spec": dict{"containers": containers}}), metav1.PatchOptions{}, "resize"))
			t.has(shares)
		}
	}
}

func guaranteed(cpu, memory int64) share { return share{cpu, cpu, memory, memory} }

var (
	three = []share{guaranteed(20, 35), guaranteed(22, 37), guaranteed(24, 39)}
	_     = InContainers("[sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase cpu & mem on c1, c2, decrease cpu & mem on c3 - net increase",
		resizes(three, []share{guaranteed(25, 40), guaranteed(27, 42), guaranteed(19, 34)}, true))
	_ = InContainers("[sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase cpu & mem on c1, decrease cpu & mem on c2, c3 - net decrease",
		resizes(three, []share{guaranteed(25, 40), guaranteed(17, 32), guaranteed(19, 34)}, true))
	_ = InContainers("[sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase: CPU (c1,c3), memory (c2, c3) ; decrease: CPU (c2)",
		resizes(three, []share{guaranteed(25, 35), guaranteed(17, 42), guaranteed(29, 44)}, true))
	_ = InContainers("[sig-node] Pod InPlace Resize Container burstable pods - extended 6 containers - various operations performed (including adding limits and requests)",
		resizes([]share{{cpu: 20}, {memory: 35}, {cpu: 20, memory: 35}, {cpu: 20}, {memory: 35}},
			[]share{{cpu: 25, cpuLimit: 35}, {memory: 30, memoryLimit: 50}, {cpu: 20, memory: 30}, {cpu: 15, memory: 35}, {cpu: 20, memory: 40}}, false))
	_ = InContainers("[sig-node] Pod InPlace Resize Container burstable pods - extended resize with equivalents",
		resizes([]share{{cpu: 2, cpuLimit: 10}}, []share{{cpu: 1, cpuLimit: 5}}, true))
)

var _ = InContainers("[sig-node] Pod InPlace Resize Container resize pod via the replace endpoint", func(t *T) {
	before, after := []share{{20, 30, 35, 45}}, []share{{25, 35, 40, 50}}
	t.makePod(t.sized(before))
	t.has(before)
	pods := t.Client.CoreV1().Pods(t.NS)
	harness.Succeeds(t, "a replacement", func() error {
		p, err := pods.Get(t.Context(), "p", get)
		if err != nil {
			return err
		}
		p.Spec.Containers[0].Resources = after[0].resources()
		_, err = pods.UpdateResize(t.Context(), "p", p, update)
		return err
	})
	t.has(after)
	u, err := t.Dynamic.Resource(v1.SchemeGroupVersion.WithResource("pods")).Namespace(t.NS).Get(t.Context(), "p", get, "resize")
	t.must(err)
	if u.GetName() != "p" || u.GetKind() != "Pod" {
		t.Errorf("the subresource gives %s %s", u.GetKind(), u.GetName())
	}
	if managers := u.GetManagedFields(); !slices.ContainsFunc(managers, func(m metav1.ManagedFieldsEntry) bool { return m.Subresource == "resize" }) {
		t.Errorf("managed fields: %v", managers)
	}
})
