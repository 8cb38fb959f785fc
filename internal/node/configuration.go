package node

import (
	"cmp"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/report"
	"keelson.dev/keelson/internal/node/shutdown"
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
		StaticPodURL:                     a.StaticPodURL,
		StaticPodURLHeader:               a.StaticPodHeader,
		FileCheckFrequency:               duration(static.Period),
		HTTPCheckFrequency:               duration(static.Period),
		Address:                          "0.0.0.0",
		Port:                             a.Port,
		Authentication:                   kubeletconfig.KubeletAuthentication{Anonymous: kubeletconfig.KubeletAnonymousAuthentication{Enabled: ptr.To(false)}, Webhook: kubeletconfig.KubeletWebhookAuthentication{Enabled: ptr.To(true), CacheTTL: duration(2 * time.Minute)}},
		Authorization:                    kubeletconfig.KubeletAuthorization{Mode: kubeletconfig.KubeletAuthorizationModeWebhook},
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
		PodsPerCore:                      int32(a.PodsPerCore),
		NodeStatusMaxImages:              ptr.To(int32(cmp.Or(a.MaxImages, report.DefaultMaxImages))),
		ContainerLogMonitorInterval:      ptr.To(duration(a.LogPeriod)),
		PodLogsDir:                       a.LogDir,
		SeccompDefault:                   ptr.To(a.SeccompDefault),
		MemoryThrottlingFactor:           ptr.To(a.MemoryQoS.Throttling),
		MemorySwap:                       kubeletconfig.MemorySwapConfiguration{SwapBehavior: swapBehavior(a.LimitedSwap)},
		ShutdownGracePeriod:              duration(a.Shutdown.Period),
		ShutdownGracePeriodCriticalPods:  duration(a.Shutdown.Critical),
		ShutdownGracePeriodByPodPriority: groups(a.Shutdown.Groups),
		SerializeImagePulls:              ptr.To(a.MaxPulls == 1),
		MaxParallelImagePulls:            pulls(a.MaxPulls),
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

func swapBehavior(limited bool) string {
	if limited {
		return "LimitedSwap"
	}
	return "NoSwap"
}

func pulls(n int) *int32 {
	if n == 0 {
		return nil
	}
	return ptr.To(int32(n))
}

// groups returns the times that pods have before a shutdown, by priority.
func groups(all []shutdown.Group) (out []kubeletconfig.ShutdownGracePeriodByPodPriority) {
	for _, g := range all {
		out = append(out, kubeletconfig.ShutdownGracePeriodByPodPriority{Priority: g.Priority, ShutdownGracePeriodSeconds: g.Seconds})
	}
	return out
}
