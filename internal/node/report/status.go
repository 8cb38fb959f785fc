package report

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/stats"
)

func (s *Reporter) compute(ctx context.Context) v1.NodeStatus {
	now := metav1.NewTime(s.Clock.Now().UTC().Truncate(time.Second))
	cond := func(t v1.NodeConditionType, status v1.ConditionStatus, reason, message string) v1.NodeCondition {
		return v1.NodeCondition{Type: t, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	out := v1.NodeStatus{Capacity: s.capacity.DeepCopy(), Allocatable: s.alloc.DeepCopy(), NodeInfo: s.info()}
	capacity, allocatable := s.Devices()
	maps.Copy(out.Capacity, capacity)
	maps.Copy(out.Allocatable, allocatable)
	out.Addresses = s.addresses(nil)
	out.DaemonEndpoints.KubeletEndpoint.Port = s.Port
	under := s.Pressure()
	for _, p := range pressures {
		c := cond(p.condition, v1.ConditionFalse, p.no, "kubelet has "+p.noMessage)
		if slices.Contains(under, p.condition) {
			c.Status, c.Reason, c.Message = v1.ConditionTrue, p.yes, "kubelet has "+p.yesMessage
		}
		out.Conditions = append(out.Conditions, c)
	}
	said, err := s.CRI.Status(ctx, &runtimeapi.StatusRequest{})
	if err == nil {
		s.said = said
	}
	tellFeatures(&out, s.said)
	if s.ShuttingDown() {
		out.Conditions = append(out.Conditions, cond(v1.NodeReady, v1.ConditionFalse, "KubeletNotReady", "node is shutting down"))
	} else {
		out.Conditions = append(out.Conditions, ready(said, err, cond))
	}
	out.Images = s.images(ctx)
	return out
}

func ready(r *runtimeapi.StatusResponse, err error, cond func(v1.NodeConditionType, v1.ConditionStatus, string, string) v1.NodeCondition) v1.NodeCondition {
	if err != nil {
		return cond(v1.NodeReady, v1.ConditionFalse, "KubeletNotReady", "container runtime is down: "+err.Error())
	}
	for _, c := range r.GetStatus().GetConditions() {
		if c.Status {
			continue
		}
		switch c.Type {
		case "NetworkReady":
			return cond(v1.NodeReady, v1.ConditionFalse, "KubeletNotReady", fmt.Sprintf("container runtime network not ready: NetworkReady=false reason:%s message:%s", c.Reason, c.Message))
		case "RuntimeReady":
			return cond(v1.NodeReady, v1.ConditionFalse, "KubeletNotReady", fmt.Sprintf("container runtime not ready: RuntimeReady=false reason:%s message:%s", c.Reason, c.Message))
		}
	}
	return cond(v1.NodeReady, v1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
}

// pressures are the node's conditions that evictions are made by, with upstream's
// reasons and messages.
var pressures = []struct {
	condition                      v1.NodeConditionType
	yes, no, yesMessage, noMessage string
}{
	{v1.NodeMemoryPressure, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "insufficient memory available", "sufficient memory available"},
	{v1.NodeDiskPressure, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk pressure", "no disk pressure"},
	{v1.NodePIDPressure, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "insufficient PID available", "sufficient PID available"},
}

func (s *Reporter) info() v1.NodeSystemInfo {
	read := func(path string) string {
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
	osImage := "linux"
	if f, err := os.Open("/etc/os-release"); err == nil {
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if v, ok := strings.CutPrefix(sc.Text(), "PRETTY_NAME="); ok {
				osImage = strings.Trim(v, `"`)
			}
		}
		f.Close()
	}
	uuid := read("/sys/class/dmi/id/product_uuid")
	machine := read("/etc/machine-id")
	if uuid == "" {
		uuid = machine
	}
	var swap *v1.NodeSwapStatus
	if n := int64(stats.SwapTotal()); n > 0 {
		swap = &v1.NodeSwapStatus{Capacity: &n}
	}
	return v1.NodeSystemInfo{Swap: swap,
		MachineID: machine, SystemUUID: uuid, BootID: read("/proc/sys/kernel/random/boot_id"), KernelVersion: read("/proc/sys/kernel/osrelease"),
		OSImage: osImage, ContainerRuntimeVersion: s.CRI.RuntimeName + "://" + s.CRI.RuntimeVersion, KubeletVersion: s.Version,
		OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
}

func (s *Reporter) images(ctx context.Context) []v1.ContainerImage {
	r, err := s.CRI.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil
	}
	var out []v1.ContainerImage
	for _, i := range r.Images {
		if names := append(append([]string{}, i.RepoDigests...), i.RepoTags...); len(names) > 0 {
			out = append(out, v1.ContainerImage{Names: names, SizeBytes: int64(i.Size)})
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		if out[i].SizeBytes != out[j].SizeBytes {
			return out[i].SizeBytes > out[j].SizeBytes
		}
		return out[i].Names[0] < out[j].Names[0]
	})
	if most := cmp.Or(s.MaxImages, DefaultMaxImages); most > 0 && len(out) > most {
		out = out[:most]
	}
	return out
}
