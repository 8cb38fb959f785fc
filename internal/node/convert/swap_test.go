package convert

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// TestSwapLimit checks whose containers can use swap, on a node with 4 GiB of memory and
// 2 GiB of swap.
func TestSwapLimit(t *testing.T) {
	list := func(q string) v1.ResourceList {
		if q == "" {
			return nil
		}
		return v1.ResourceList{v1.ResourceMemory: resource.MustParse(q)}
	}
	for _, c := range []struct {
		class          v1.PodQOSClass
		request, limit string
		priority       *int32
		swap, want     int64
	}{
		{v1.PodQOSBurstable, "1Gi", "2Gi", nil, 2 << 30, 512 << 20},
		{v1.PodQOSBurstable, "1Gi", "", nil, 2 << 30, 512 << 20},
		{v1.PodQOSBurstable, "1Gi", "2Gi", nil, 0, 0},
		{v1.PodQOSBurstable, "1Gi", "1Gi", nil, 2 << 30, 0},
		{v1.PodQOSBurstable, "", "", nil, 2 << 30, 0},
		{v1.PodQOSBurstable, "1Gi", "2Gi", ptr.To[int32](systemCritical), 2 << 30, 0},
		{v1.PodQOSGuaranteed, "1Gi", "2Gi", nil, 2 << 30, 0},
	} {
		p := &v1.Pod{Spec: v1.PodSpec{Priority: c.priority}, Status: v1.PodStatus{QOSClass: c.class}}
		spec := &v1.Container{Resources: v1.ResourceRequirements{Requests: list(c.request), Limits: list(c.limit)}}
		if got := (&Converter{Memory: 4 << 30, Swap: c.swap}).swapLimit(p, spec); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// TestSeccompDefault checks that the node's default is that of containers without a
// profile only.
func TestSeccompDefault(t *testing.T) {
	c := &Converter{SeccompDefault: true}
	if got := c.seccomp(nil, nil).ProfileType; got != runtimeapi.SecurityProfile_RuntimeDefault {
		t.Errorf("without a profile: %v", got)
	}
	if got := c.seccomp(&v1.SeccompProfile{Type: v1.SeccompProfileTypeUnconfined}, nil).ProfileType; got != runtimeapi.SecurityProfile_Unconfined {
		t.Errorf("unconfined: %v", got)
	}
	own := &v1.SeccompProfile{Type: v1.SeccompProfileTypeLocalhost, LocalhostProfile: ptr.To("a/b.json")}
	c.Layout.Root = "/node"
	if got := c.seccomp(nil, own); got.ProfileType != runtimeapi.SecurityProfile_Localhost || got.LocalhostRef != "/node/seccomp/a/b.json" {
		t.Errorf("a profile of the node: %v", got)
	}
	if got := (&Converter{}).seccomp(nil, nil).ProfileType; got != runtimeapi.SecurityProfile_Unconfined {
		t.Errorf("without a default: %v", got)
	}
}
