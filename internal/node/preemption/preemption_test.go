package preemption

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/static"
)

// pod makes a pod with these requests, and with the same limits if its class is Guaranteed.
func pod(name, cpu, memory string, class v1.PodQOSClass) *v1.Pod {
	r := v1.ResourceList{}
	if cpu != "" {
		r[v1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		r[v1.ResourceMemory] = resource.MustParse(memory)
	}
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{Priority: ptr.To[int32](0), Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: r}}}}, Status: v1.PodStatus{QOSClass: class}}
}

func TestChoose(t *testing.T) {
	critical := pod("critical", "1", "1Gi", v1.PodQOSBurstable)
	critical.Annotations = map[string]string{static.SourceAnnotation: "file"}
	system := pod("system", "4", "4Gi", v1.PodQOSBurstable)
	system.Spec.Priority = ptr.To[int32](2_000_000_000)
	all := []*v1.Pod{
		pod("best", "", "", v1.PodQOSBestEffort), pod("best2", "", "", v1.PodQOSBestEffort),
		pod("small", "100m", "100Mi", v1.PodQOSBurstable), pod("wide", "500m", "100Mi", v1.PodQOSBurstable), pod("large", "500m", "1Gi", v1.PodQOSBurstable),
		pod("fixed", "1", "2Gi", v1.PodQOSGuaranteed), system,
	}
	cpu, memory, number := v1.ResourceCPU, v1.ResourceMemory, v1.ResourcePods
	for name, c := range map[string]struct {
		lacks []Lack
		want  string
		err   string
	}{
		"nothing":                           {nil, "", ""},
		"the smallest that suffices":        {[]Lack{{cpu, 50}}, "small", ""},
		"of equal ones the smaller":         {[]Lack{{cpu, 500}}, "wide", ""},
		"no more than are needed":           {[]Lack{{cpu, 1000}}, "wide large", ""},
		"two resources":                     {[]Lack{{cpu, 400}, {memory, 1 << 30}}, "large", ""},
		"a pod's place":                     {[]Lack{{number, 1}}, "best", ""},
		"two pods' places":                  {[]Lack{{number, 3}}, "best best2 small", ""},
		"Guaranteed ones last":              {[]Lack{{cpu, 1200}}, "wide fixed", ""},
		"all":                               {[]Lack{{cpu, 2100}}, "wide large small fixed", ""},
		"more than there is":                {[]Lack{{cpu, 2101}, {memory, 1}}, "", "no set of running pods found to reclaim resources: [(res: cpu, q: 1), ]"},
		"a resource that none of them uses": {[]Lack{{"example.com/a", 2}}, "", "no set of running pods found to reclaim resources: [(res: example.com/a, q: 2), ]"},
	} {
		got, err := Choose(critical, all, c.lacks)
		var names []string
		for _, p := range got {
			names = append(names, p.Name)
		}
		if strings.Join(names, " ") != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: %v, %v; want %s, %s", name, names, err, c.want, c.err)
		}
	}
	if !slices.ContainsFunc(all, func(p *v1.Pod) bool { return Preemptable(pod("p", "", "", v1.PodQOSBurstable), p) }) {
		return
	}
	t.Error("a pod that is not critical preempts one of its own priority")
}

func TestPreemptable(t *testing.T) {
	fixed := pod("static", "", "", "")
	fixed.Annotations = map[string]string{static.SourceAnnotation: "file"}
	with := func(priority int32) *v1.Pod {
		p := pod("p", "", "", "")
		p.Spec.Priority = &priority
		return p
	}
	for _, c := range []struct {
		by, pod *v1.Pod
		want    bool
	}{
		{fixed, with(1000), true}, {with(2_000_000_000), with(1000), true}, {with(1000), fixed, true}, {with(1), with(0), true}, {with(0), with(0), false},
		{fixed, fixed, false}, {fixed, with(2_000_000_000), false}, {with(2_000_001_000), with(2_000_000_000), true},
	} {
		if got := Preemptable(c.by, c.pod); got != c.want {
			t.Errorf("%v by %v: %v", c.pod.Spec.Priority, c.by.Spec.Priority, got)
		}
	}
}
