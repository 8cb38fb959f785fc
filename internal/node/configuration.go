package node

import (
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/report"
	"keelson.dev/keelson/internal/node/static"
)

// Configuration returns the agent's settings in the form of a kubelet's
// configuration: its own, and the defaults of upstream that it follows.
func (a *Agent) Configuration() *kubeletconfig.KubeletConfiguration {
	list := func(r v1.ResourceList) map[string]string {
		if len(r) == 0 {
			return nil
		}
		out := map[string]string{}
		for name, q := range r {
			out[string(name)] = q.String()
		}
		return out
	}
	duration := func(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }
	size := resource.NewQuantity(a.LogMaxSize, resource.BinarySI)
	return &kubeletconfig.KubeletConfiguration{
		TypeMeta:                         metav1.TypeMeta{Kind: "KubeletConfiguration", APIVersion: kubeletconfig.SchemeGroupVersion.String()},
		EnableServer:                     ptr.To(true),
		StaticPodPath:                    a.StaticPods,
		FileCheckFrequency:               duration(static.Period),
		Address:                          "0.0.0.0",
		Port:                             a.Port,
		Authentication:                   kubeletconfig.KubeletAuthentication{Anonymous: kubeletconfig.KubeletAnonymousAuthentication{Enabled: ptr.To(false)}, Webhook: kubeletconfig.KubeletWebhookAuthentication{Enabled: ptr.To(true), CacheTTL: duration(2 * time.Minute)}},
		Authorization:                    kubeletconfig.KubeletAuthorization{Mode: kubeletconfig.KubeletAuthorizationModeWebhook},
		EnableDebuggingHandlers:          ptr.To(true),
		ClusterDomain:                    a.ClusterDomain,
		ClusterDNS:                       a.ClusterDNS,
		NodeStatusUpdateFrequency:        duration(report.StatusPeriod),
		NodeStatusReportFrequency:        duration(report.Heartbeat),
		NodeLeaseDurationSeconds:         report.LeaseSeconds,
		ImageMinimumGCAge:                duration(a.ImageGC.MinAge),
		ImageMaximumGCAge:                duration(a.ImageGC.MaxAge),
		ImageGCHighThresholdPercent:      ptr.To(int32(a.ImageGC.HighThreshold)),
		ImageGCLowThresholdPercent:       ptr.To(int32(a.ImageGC.LowThreshold)),
		VolumeStatsAggPeriod:             duration(time.Minute),
		CgroupRoot:                       a.CgroupRoot,
		CgroupsPerQOS:                    ptr.To(true),
		CgroupDriver:                     string(a.Cgroups.Driver),
		CPUManagerPolicy:                 a.exclusive.CPUs.Policy,
		CPUManagerPolicyOptions:          a.exclusive.CPUs.Options,
		CPUManagerReconcilePeriod:        duration(a.exclusive.CPUs.Period),
		MemoryManagerPolicy:              a.exclusive.Memory.Policy,
		ReservedMemory:                   reserved(a.exclusive.Memory.Reserved),
		TopologyManagerPolicy:            a.exclusive.Policy,
		TopologyManagerScope:             a.exclusive.Scope,
		TopologyManagerPolicyOptions:     a.exclusive.Options,
		ReservedSystemCPUs:               a.Exclusive.ReservedCPUs.String(),
		MaxPods:                          int32(a.MaxPods),
		ResolverConfig:                   ptr.To(a.ResolvConf),
		EvictionHard:                     a.Eviction.Hard,
		EvictionSoft:                     a.Eviction.Soft,
		EvictionSoftGracePeriod:          a.Eviction.SoftGrace,
		EvictionMinimumReclaim:           a.Eviction.MinimumReclaim,
		EvictionPressureTransitionPeriod: duration(a.Eviction.Transition),
		EvictionMaxPodGracePeriod:        int32(a.Eviction.MaxPodGrace),
		EnforceNodeAllocatable:           []string{"pods"},
		KubeReserved:                     list(a.KubeReserved),
		SystemReserved:                   list(a.SystemReserved),
		ContainerLogMaxSize:              size.String(),
		ContainerLogMaxFiles:             ptr.To(int32(a.LogMaxFiles)),
		AllowedUnsafeSysctls:             a.AllowedUnsafeSysctls,
		EnableSystemLogHandler:           ptr.To(true),
		EnableSystemLogQuery:             ptr.To(false),
		EnableProfilingHandler:           ptr.To(true),
		EnableDebugFlagsHandler:          ptr.To(true),
		ContainerRuntimeEndpoint:         a.CRIEndpoint,
		RegisterNode:                     ptr.To(true),
		RegisterWithTaints:               a.Taints,
		FailSwapOn:                       ptr.To(false),
		LocalStorageCapacityIsolation:    ptr.To(true),
	}
}

// reserved returns the memory that is kept from containers on each NUMA node.
func reserved(nodes map[int]v1.ResourceList) (out []kubeletconfig.MemoryReservation) {
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		out = append(out, kubeletconfig.MemoryReservation{NumaNode: int32(node), Limits: nodes[node]})
	}
	return out
}
