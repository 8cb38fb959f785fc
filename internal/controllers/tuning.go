package controllers

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
)

// Tuning configures controllers, under the names of kube-controller-manager's flags.
// The zero value is not valid: DefaultTuning gives what Keelson runs with.
type Tuning struct {
	NodeLifecycle           NodeLifecycle
	HorizontalPodAutoscaler HorizontalPodAutoscaler
	// TerminatedPodGCThreshold is how many pods that have ended may be there before the
	// oldest are deleted, any number where it is 0 or less.
	TerminatedPodGCThreshold int
	// ResourceQuotaSyncPeriod is how often all quotas are counted anew.
	ResourceQuotaSyncPeriod time.Duration
	// ClusterSigningDuration is how long certificates hold at most.
	ClusterSigningDuration time.Duration
	// LegacyTokenCleanUpPeriod is how long a token in a Secret may be unused before it is
	// invalid, and then before it is deleted.
	LegacyTokenCleanUpPeriod time.Duration
	// MaxEndpointsPerSlice bounds the endpoints of an EndpointSlice.
	MaxEndpointsPerSlice int
	// NoForceDetach keeps volumes attached to nodes that are not ready, though they do not
	// say that they have let them go.
	NoForceDetach bool
	// Workers are how many objects a controller reconciles at once, by the controller's
	// name.
	Workers map[string]int
}

// NodeLifecycle configures the node lifecycle controller.
type NodeLifecycle struct {
	// MonitorPeriod is how often all nodes are looked at.
	MonitorPeriod time.Duration
	// StartupGracePeriod is how long a node may be silent that has never posted its
	// status, MonitorGracePeriod any other.
	StartupGracePeriod, MonitorGracePeriod time.Duration
	// EvictionRate is to how many nodes of a zone a second the taint is added that evicts
	// their pods, SecondaryEvictionRate that of a zone of which many nodes are not ready.
	EvictionRate, SecondaryEvictionRate float32
	// LargeClusterSizeThreshold is the size up to which the secondary rate is 0.
	LargeClusterSizeThreshold int32
	// UnhealthyZoneThreshold is the part of a zone's nodes, at least three, that are not
	// ready from which on the zone counts as disrupted.
	UnhealthyZoneThreshold float32
}

// HorizontalPodAutoscaler configures the horizontal pod autoscaler.
type HorizontalPodAutoscaler struct {
	// SyncPeriod is how often each autoscaler is looked at.
	SyncPeriod time.Duration
	// DownscaleStabilization is for how long a number of replicas is kept that was
	// recommended, where the autoscaler does not say.
	DownscaleStabilization time.Duration
	// Tolerance is how far usage may be from its target before the number changes, where
	// the autoscaler does not say.
	Tolerance float64
	// CPUInitializationPeriod is how long after its start a pod's CPU counts only while it
	// is ready, and measured since then.
	CPUInitializationPeriod time.Duration
	// InitialReadinessDelay is how long after its start a pod's readiness may change
	// without the pod being one that was ready before.
	InitialReadinessDelay time.Duration
}

// syncs are the flags of workers: upstream's name, the controller, and its number here.
var syncs = []struct {
	flag, controller string
	workers          int
}{
	{"concurrent-cron-job-syncs", "cronjob-controller", 5},
	{"concurrent-daemonset-syncs", "daemonset-controller", 2},
	{"concurrent-deployment-syncs", "deployment-controller", 5},
	{"concurrent-device-taint-eviction-syncs", "device-taint-eviction-controller", 8},
	{"concurrent-endpoint-syncs", "endpoints-controller", 2},
	{"concurrent-ephemeralvolume-syncs", "ephemeral-volume-controller", 4},
	{"concurrent-gc-syncs", "garbage-collector-controller", 20},
	{"concurrent-horizontal-pod-autoscaler-syncs", "horizontal-pod-autoscaler-controller", 5},
	{"concurrent-job-syncs", "job-controller", 5},
	{"concurrent-namespace-syncs", "namespace-controller", 4},
	{"concurrent-rc-syncs", "replicationcontroller-controller", 5},
	{"concurrent-replicaset-syncs", "replicaset-controller", 5},
	{"concurrent-resource-claim-syncs", "resourceclaim-controller", 5},
	{"concurrent-resource-quota-syncs", "resourcequota-controller", 5},
	{"concurrent-service-endpoint-syncs", "endpointslice-controller", 2},
	{"concurrent-serviceaccount-token-syncs", "serviceaccount-token-controller", 1},
	{"concurrent-statefulset-syncs", "statefulset-controller", 5},
	{"concurrent-ttl-after-finished-syncs", "ttl-after-finished-controller", 5},
	{"concurrent-validating-admission-policy-status-syncs", "validatingadmissionpolicy-status-controller", 1},
	{"mirroring-concurrent-service-endpoint-syncs", "endpointslice-mirroring-controller", 5},
}

// DefaultTuning returns upstream's defaults, but for the numbers of workers, of which
// Keelson needs fewer.
func DefaultTuning() Tuning {
	t := Tuning{
		NodeLifecycle: NodeLifecycle{
			MonitorPeriod: 5 * time.Second, StartupGracePeriod: time.Minute, MonitorGracePeriod: 50 * time.Second,
			EvictionRate: 0.1, SecondaryEvictionRate: 0.01, LargeClusterSizeThreshold: 50, UnhealthyZoneThreshold: 0.55,
		},
		HorizontalPodAutoscaler: HorizontalPodAutoscaler{
			SyncPeriod: 15 * time.Second, DownscaleStabilization: 5 * time.Minute, Tolerance: 0.1,
			CPUInitializationPeriod: 5 * time.Minute, InitialReadinessDelay: 30 * time.Second,
		},
		TerminatedPodGCThreshold: 12500,
		ResourceQuotaSyncPeriod:  5 * time.Minute,
		ClusterSigningDuration:   365 * 24 * time.Hour,
		LegacyTokenCleanUpPeriod: 365 * 24 * time.Hour,
		MaxEndpointsPerSlice:     100,
		Workers:                  map[string]int{},
	}
	for _, s := range syncs {
		t.Workers[s.controller] = s.workers
	}
	return t
}

// AddFlags adds the flags, whose defaults are the present values.
func (t *Tuning) AddFlags(fs *pflag.FlagSet) {
	n, h := &t.NodeLifecycle, &t.HorizontalPodAutoscaler
	fs.DurationVar(&n.MonitorPeriod, "node-monitor-period", n.MonitorPeriod, "how often all nodes are looked at")
	fs.DurationVar(&n.StartupGracePeriod, "node-startup-grace-period", n.StartupGracePeriod, "how long a node that has never posted its status may be silent")
	fs.DurationVar(&n.MonitorGracePeriod, "node-monitor-grace-period", n.MonitorGracePeriod, "how long any other node may be silent before its state is unknown")
	fs.Float32Var(&n.EvictionRate, "node-eviction-rate", n.EvictionRate, "to how many nodes of a zone a second the taint is added that evicts their pods")
	fs.Float32Var(&n.SecondaryEvictionRate, "secondary-node-eviction-rate", n.SecondaryEvictionRate, "the same for a zone of which many nodes are not ready; 0 for one of --large-cluster-size-threshold nodes or fewer")
	fs.Int32Var(&n.LargeClusterSizeThreshold, "large-cluster-size-threshold", n.LargeClusterSizeThreshold, "from how many nodes on a zone is a large one")
	fs.Float32Var(&n.UnhealthyZoneThreshold, "unhealthy-zone-threshold", n.UnhealthyZoneThreshold, "the part of a zone's nodes, at least 3, that are not ready for which --secondary-node-eviction-rate holds")
	fs.DurationVar(&h.SyncPeriod, "horizontal-pod-autoscaler-sync-period", h.SyncPeriod, "how often each horizontal autoscaler is looked at")
	fs.DurationVar(&h.DownscaleStabilization, "horizontal-pod-autoscaler-downscale-stabilization", h.DownscaleStabilization, "for how long a number of replicas that was recommended is kept")
	fs.Float64Var(&h.Tolerance, "horizontal-pod-autoscaler-tolerance", h.Tolerance, "how far the ratio of usage to its target may be from 1 before the number of replicas changes")
	fs.DurationVar(&h.CPUInitializationPeriod, "horizontal-pod-autoscaler-cpu-initialization-period", h.CPUInitializationPeriod, "how long after its start a pod's CPU may not count")
	fs.DurationVar(&h.InitialReadinessDelay, "horizontal-pod-autoscaler-initial-readiness-delay", h.InitialReadinessDelay, "how long after its start a change of a pod's readiness counts as its first")
	fs.IntVar(&t.TerminatedPodGCThreshold, "terminated-pod-gc-threshold", t.TerminatedPodGCThreshold, "how many pods that have ended may be there before the oldest are deleted; 0 for any number")
	fs.DurationVar(&t.ResourceQuotaSyncPeriod, "resource-quota-sync-period", t.ResourceQuotaSyncPeriod, "how often all quotas are counted anew")
	fs.DurationVar(&t.ClusterSigningDuration, "cluster-signing-duration", t.ClusterSigningDuration, "how long certificates that are signed on request hold at most")
	fs.DurationVar(&t.LegacyTokenCleanUpPeriod, "legacy-service-account-token-clean-up-period", t.LegacyTokenCleanUpPeriod, "how long a token in a Secret may be unused before it is invalid, and then before it is deleted")
	fs.IntVar(&t.MaxEndpointsPerSlice, "max-endpoints-per-slice", t.MaxEndpointsPerSlice, "the most endpoints of an EndpointSlice")
	fs.BoolVar(&t.NoForceDetach, "disable-force-detach-on-timeout", t.NoForceDetach, "leave volumes attached to a node that is not ready, however long it does not say that it has let them go; its taint out-of-service lets them go all the same")
	for _, s := range syncs {
		fs.Var(&workers{t, s.controller}, s.flag, "how many objects the "+s.controller+" reconciles at once")
	}
}

// workers is the number of a controller's workers as a flag.
type workers struct {
	t          *Tuning
	controller string
}

// Set implements pflag.Value.
func (w *workers) Set(s string) error {
	var n int
	if _, err := fmt.Sscanf(s, "%d", &n); err != nil || fmt.Sprint(n) != s {
		return fmt.Errorf("want a number, found %q", s)
	}
	w.t.Workers[w.controller] = n
	return nil
}

// String implements pflag.Value.
func (w *workers) String() string {
	if w.t == nil {
		return "0"
	}
	return fmt.Sprint(w.t.Workers[w.controller])
}

// Type implements pflag.Value.
func (w *workers) Type() string { return "int" }

// Validate reports the values that cannot be.
func (t *Tuning) Validate() error {
	var errs []error
	bad := func(flag string, value any, want string) {
		errs = append(errs, fmt.Errorf("--%s: want %s, found %v", flag, want, value))
	}
	n, h := &t.NodeLifecycle, &t.HorizontalPodAutoscaler
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"node-monitor-period", n.MonitorPeriod}, {"node-startup-grace-period", n.StartupGracePeriod}, {"node-monitor-grace-period", n.MonitorGracePeriod},
		{"horizontal-pod-autoscaler-sync-period", h.SyncPeriod}, {"resource-quota-sync-period", t.ResourceQuotaSyncPeriod},
		{"cluster-signing-duration", t.ClusterSigningDuration}, {"legacy-service-account-token-clean-up-period", t.LegacyTokenCleanUpPeriod},
	} {
		if d.value <= 0 {
			bad(d.flag, d.value, "a time greater than 0")
		}
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"horizontal-pod-autoscaler-downscale-stabilization", h.DownscaleStabilization},
		{"horizontal-pod-autoscaler-cpu-initialization-period", h.CPUInitializationPeriod}, {"horizontal-pod-autoscaler-initial-readiness-delay", h.InitialReadinessDelay},
	} {
		if d.value < 0 {
			bad(d.flag, d.value, "a time that is not negative")
		}
	}
	if n.EvictionRate < 0 || n.SecondaryEvictionRate < 0 {
		bad("node-eviction-rate", n.EvictionRate, "rates that are not negative, here and of --secondary-node-eviction-rate")
	}
	if n.UnhealthyZoneThreshold < 0 || n.UnhealthyZoneThreshold > 1 {
		bad("unhealthy-zone-threshold", n.UnhealthyZoneThreshold, "a part from 0 to 1")
	}
	if h.Tolerance < 0 {
		bad("horizontal-pod-autoscaler-tolerance", h.Tolerance, "a number that is not negative")
	}
	if t.MaxEndpointsPerSlice < 1 || t.MaxEndpointsPerSlice > 1000 {
		bad("max-endpoints-per-slice", t.MaxEndpointsPerSlice, "a number from 1 to 1000")
	}
	for _, s := range syncs {
		if t.Workers[s.controller] < 1 {
			bad(s.flag, t.Workers[s.controller], "a number greater than 0")
		}
	}
	return errors.Join(errs...)
}
