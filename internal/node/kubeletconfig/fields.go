package kubeletconfig

// field is what a node does with a field of the configuration: it sets a flag; or it has
// the values that are named, and any other is told of, with the reason.
type field struct {
	// flag is the flag that says the same.
	flag string
	// only are the values that are so anyway.
	only []any
	// why is why others have no effect.
	why string
}

func flag(name string) field             { return field{flag: name} }
func told(why string, only ...any) field { return field{only: only, why: why} }
func object(pairs ...any) (m map[string]any) {
	m = map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}

// The reasons that several fields have.
const (
	byEvent    = "the node acts on changes when they happen, and looks for what is missed at times of its own"
	ofProcess  = "it is for the whole process: give the command line's flag"
	notChecked = "the node does not have it"
)

// fields are all fields of a KubeletConfiguration v1beta1, by their names in JSON.
var fields = map[string]field{
	"address":              told("the node listens on all addresses", "0.0.0.0", "::"),
	"allowedUnsafeSysctls": flag("allowed-unsafe-sysctls"),
	"authentication":       told("callers prove themselves by certificates of --client-ca-file, or by tokens that the API server confirms; nobody is anonymous", object(), object("anonymous", object("enabled", false)), object("webhook", object("enabled", true)), object("anonymous", object("enabled", false), "webhook", object("enabled", true))),
	"authorization":        told("the API server is asked about callers", object(), object("mode", "Webhook")),
	"cgroupDriver":         flag("cgroup-driver"),
	"cgroupRoot":           told("pods' cgroups are below the root cgroup", "", "/"),
	"cgroupsPerQOS":        told("each class of service has a cgroup", true),
	"clusterDNS":           told("the node's own name server is used: give keelson agent --cluster-dns for another"),
	"clusterDomain":        told("the cluster's domain is cluster.local", "cluster.local"),
	"configMapAndSecretChangeDetectionStrategy": told("the node watches what its pods use", "Watch"),
	"containerLogMaxFiles":                      flag("container-log-max-files"),
	"containerLogMaxSize":                       flag("container-log-max-size"),
	"containerLogMaxWorkers":                    told("logs are rotated one after another", 1.0),
	"containerLogMonitorInterval":               flag("container-log-monitor-interval"),
	"containerRuntimeEndpoint":                  flag("container-runtime-endpoint"),
	"contentType":                               told("the node speaks protobuf with the API server", "application/vnd.kubernetes.protobuf"),
	"cpuCFSQuota":                               told("limits of CPUs are enforced", true),
	"cpuCFSQuotaPeriod":                         told("the period of quotas is 100ms", "100ms"),
	"cpuManagerPolicy":                          flag("cpu-manager-policy"),
	"cpuManagerPolicyOptions":                   flag("cpu-manager-policy-options"),
	"cpuManagerReconcilePeriod":                 flag("cpu-manager-reconcile-period"),
	"crashLoopBackOff":                          flag("max-container-restart-period"),
	"defaultPodSysctls":                         told(notChecked+": give the sysctls in the pods", object()),
	"enableContentionProfiling":                 told("profiles of locks are not taken", false),
	"enableControllerAttachDetach":              told("the control plane attaches volumes", true),
	"enableDebugFlagsHandler":                   flag("enable-debug-flags-handler"),
	"enableDebuggingHandlers":                   flag("enable-debugging-handlers"),
	"enableProfilingHandler":                    flag("enable-profiling-handler"),
	"enableServer":                              told("the node's HTTP API is always served", true),
	"enableSystemLogHandler":                    flag("enable-system-log-handler"),
	"enableSystemLogQuery":                      flag("enable-system-log-query"),
	"enforceNodeAllocatable":                    told("the limit of all pods together is enforced, and none for the rest of the machine", []any{"pods"}),
	"eventBurst":                                told("events are limited for each object, not for the node"),
	"eventRecordQPS":                            told("events are limited for each object, not for the node", 0.0),
	"evictionHard":                              flag("eviction-hard"),
	"evictionMaxPodGracePeriod":                 flag("eviction-max-pod-grace-period"),
	"evictionMinimumReclaim":                    flag("eviction-minimum-reclaim"),
	"evictionPressureTransitionPeriod":          flag("eviction-pressure-transition-period"),
	"evictionSoft":                              flag("eviction-soft"),
	"evictionSoftGracePeriod":                   flag("eviction-soft-grace-period"),
	"failCgroupV1":                              told("the node runs on cgroup v1, too", false),
	"failSwapOn":                                told("the node runs on machines with swap: --memory-swap-behavior says who uses it", false),
	"featureGates":                              told("features that are stable, or beta and on in v1.37, are on, and no others", object()),
	"fileCheckFrequency":                        told("changes of manifests are noticed when they happen, or within 20s", "20s"),
	"hairpinMode":                               told("packets of a pod come back to it by the bridge", "hairpin-veth", "promiscuous-bridge"),
	"healthzBindAddress":                        told("the health is served at /healthz of the node's HTTP API", "127.0.0.1"),
	"healthzPort":                               told("the health is served at /healthz of the node's HTTP API", 0.0),
	"httpCheckFrequency":                        told("staticPodURL is read every 20s", "20s"),
	"imageGCHighThresholdPercent":               flag("image-gc-high-threshold"),
	"imageGCLowThresholdPercent":                flag("image-gc-low-threshold"),
	"imageMaximumGCAge":                         flag("maximum-image-ttl-duration"),
	"imageMinimumGCAge":                         flag("minimum-image-ttl-duration"),
	"imagePullCredentialsVerificationPolicy":    flag("image-pull-credentials-verification-policy"),
	"imageServiceEndpoint":                      told("images are the runtime's, at containerRuntimeEndpoint", ""),
	"iptablesDropBit":                           told("the node has no rules of iptables"),
	"iptablesMasqueradeBit":                     told("the node has no rules of iptables"),
	"kernelMemcgNotification":                   told("memory is measured, every 10s and more often under pressure", false),
	"kubeAPIBurst":                              told(ofProcess + " --kube-api-burst of keelson agent"),
	"kubeAPIQPS":                                told(ofProcess + " --kube-api-qps of keelson agent"),
	"kubeReserved":                              flag("kube-reserved"),
	"kubeReservedCgroup":                        told("reservations are kept from pods, and are no limit for others", ""),
	"kubeletCgroups":                            told("the node's process stays in the cgroup that it is started in", ""),
	"localStorageCapacityIsolation":             told("limits of local storage are enforced", true),
	"logging":                                   told(ofProcess + "s of the group Logging"),
	"makeIPTablesUtilChains":                    told("the node has no rules of iptables", false),
	"maxOpenFiles":                              told("the limit of open files is the one that the process is started with"),
	"maxParallelImagePulls":                     flag("max-parallel-image-pulls"),
	"maxPods":                                   flag("max-pods"),
	"memoryManagerPolicy":                       flag("memory-manager-policy"),
	"memoryReservationPolicy":                   flag("memory-reservation-policy"),
	"memorySwap":                                flag("memory-swap-behavior"),
	"memoryThrottlingFactor":                    flag("memory-throttling-factor"),
	"mergeDefaultEvictionSettings":              {}, // derive
	"nodeLeaseDurationSeconds":                  told("the node's lease is for 40 seconds", 40.0),
	"nodeStatusMaxImages":                       flag("node-status-max-images"),
	"nodeStatusReportFrequency":                 told("a status that does not change is written every 5m", "5m", "5m0s"),
	"nodeStatusUpdateFrequency":                 told("the status is computed every 10s, and on changes", "10s"),
	"oomScoreAdj":                               told("the score of the process is the one that it is started with"),
	"podCIDR":                                   told(ofProcess+" --pod-cidr", ""),
	"podLogsDir":                                flag("pod-logs-dir"),
	"podPidsLimit":                              flag("pod-max-pids"),
	"podsPerCore":                               flag("pods-per-core"),
	"port":                                      flag("node-port"),
	"preloadedImagesVerificationAllowlist":      flag("preloaded-images-verification-allowlist"),
	"protectKernelDefaults":                     told("the node sets the kernel parameters that it needs", false),
	"providerID":                                flag("provider-id"),
	"qosReserved":                               told(notChecked+": it is alpha", object()),
	"readOnlyPort":                              told("nothing is served without authentication", 0.0),
	"registerNode":                              told("the node registers itself", true),
	"registerWithTaints":                        flag("register-with-taints"),
	"registryBurst":                             told("pulls are not limited by time: see maxParallelImagePulls"),
	"registryPullQPS":                           told("pulls are not limited by time: see maxParallelImagePulls", 0.0),
	"reservedMemory":                            flag("reserved-memory"),
	"reservedSystemCPUs":                        flag("reserved-cpus"),
	"resolvConf":                                flag("resolv-conf"),
	"rotateCertificates":                        told("the node's certificate is renewed in time", true),
	"runOnce":                                   told(notChecked, false),
	"runtimeRequestTimeout":                     told("the runtime has 2m for a call", "2m", "2m0s"),
	"seccompDefault":                            flag("seccomp-default"),
	"serializeImagePulls":                       {}, // derive
	"serverTLSBootstrap":                        told(ofProcess + " --rotate-server-certificates of keelson agent"),
	"showHiddenMetricsForVersion":               told("no metrics are hidden", ""),
	"shutdownGracePeriod":                       flag("shutdown-grace-period"),
	"shutdownGracePeriodByPodPriority":          flag("shutdown-grace-period-by-pod-priority"),
	"shutdownGracePeriodCriticalPods":           flag("shutdown-grace-period-critical-pods"),
	"singleProcessOOMKill":                      told("on cgroup v2 all processes of a container are killed together", false),
	"staticPodPath":                             flag("pod-manifest-path"),
	"staticPodURL":                              flag("manifest-url"),
	"staticPodURLHeader":                        flag("manifest-url-header"),
	"streamingConnectionIdleTimeout":            told("streams end with their clients, or with the runtime", "0s"),
	"syncFrequency":                             told(byEvent),
	"systemCgroups":                             told("other processes stay in their cgroups", ""),
	"systemReserved":                            flag("system-reserved"),
	"systemReservedCgroup":                      told("reservations are kept from pods, and are no limit for others", ""),
	"tlsCertFile":                               told(ofProcess+" --tls-cert-file of keelson agent", ""),
	"tlsCipherSuites":                           told("the node's server has TLS 1.2 and 1.3 with Go's suites"),
	"tlsCurvePreferences":                       told("the node's server has TLS 1.2 and 1.3 with Go's curves"),
	"tlsMinVersion":                             told("the node's server has TLS 1.2 and 1.3", "VersionTLS12"),
	"tlsPrivateKeyFile":                         told(ofProcess+" --tls-private-key-file of keelson agent", ""),
	"topologyManagerPolicy":                     flag("topology-manager-policy"),
	"topologyManagerPolicyOptions":              flag("topology-manager-policy-options"),
	"topologyManagerScope":                      flag("topology-manager-scope"),
	"tracing":                                   flag("tracing"),
	"userNamespaces":                            told("a pod has 65536 IDs", object(), object("idsPerPod", 65536.0)),
	"volumePluginDir":                           told("there are no FlexVolume drivers: use CSI"),
	"volumeStatsAggPeriod":                      told("volumes are measured when somebody asks, and no more often than every minute", "1m", "1m0s"),
}
