package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// fixedFlag is a flag of upstream's kube-apiserver whose behaviour is fixed in Keelson:
// it accepts the values that agree with it, and refuses others with an error that
// says what to do instead.
type fixedFlag struct {
	only []string // empty takes none
	why  string
	kind string
}

// Set implements pflag.Value.
func (t *fixedFlag) Set(v string) error {
	if slices.Contains(t.only, v) {
		return nil
	}
	return fmt.Errorf("%s", t.why)
}

// String implements pflag.Value.
func (t *fixedFlag) String() string {
	if len(t.only) == 0 {
		return ""
	}
	return t.only[0]
}

// Type implements pflag.Value.
func (t *fixedFlag) Type() string { return t.kind }

// hint is a flag that tunes how upstream does something which Keelson does in
// another way: only speed depends on it, and the user is warned that it has no
// effect.
type hint struct{ value, why, kind string }

// Set implements pflag.Value.
func (h *hint) Set(v string) error {
	h.value = v
	return nil
}

// String implements pflag.Value.
func (h *hint) String() string { return h.value }

// Type implements pflag.Value.
func (h *hint) Type() string { return h.kind }

// fixedValue is a flag that is accepted with the values only, and refused otherwise
// with the message why.
type fixedValue struct{ name, kind, only, why string }

// noEffect is a flag that has no effect, with upstream's default and why.
type noEffect struct{ name, kind, value, why string }

// fixedFlags are refused, with the message why, for any value except only.
var fixedFlags = []fixedValue{
	{"aggregator-reject-forwarding-redirect", "bool", "true", "redirects of aggregated API servers are never passed on: leave it out"},
	{"allow-metric-labels", "string", "", "labels of metrics cannot be restricted: leave out whole metrics with --disabled-metrics, or labels in the scraper"},
	{"allow-metric-labels-manifest", "string", "", "labels of metrics cannot be restricted: leave out whole metrics with --disabled-metrics, or labels in the scraper"},
	{"allow-privileged", "bool", "true", "privileged containers are allowed, and kept out of namespaces by Pod Security admission (the label pod-security.kubernetes.io/enforce)"},
	{"apiserver-count", "int", "1", "servers that share an etcd find each other by leases: leave it out"},
	{"audit-log-version", "string", "audit.k8s.io/v1", "audit events are of audit.k8s.io/v1, the only version there is"},
	{"audit-webhook-version", "string", "audit.k8s.io/v1", "audit events are of audit.k8s.io/v1, the only version there is"},
	{"authorization-policy-file", "string", "", "there is no ABAC authorizer: use --authorization-mode=RBAC, with Roles and RoleBindings"},
	{"coordinated-leadership-lease-duration", "duration", "15s", "servers elect leaders by Leases, without the alpha feature CoordinatedLeaderElection: leave it out"},
	{"coordinated-leadership-renew-deadline", "duration", "10s", "servers elect leaders by Leases, without the alpha feature CoordinatedLeaderElection: leave it out"},
	{"coordinated-leadership-retry-period", "duration", "2s", "servers elect leaders by Leases, without the alpha feature CoordinatedLeaderElection: leave it out"},
	{"egress-selector-config-file", "string", "", "connections to nodes, webhooks and etcd are made directly: leave it out"},
	{"emulated-version", "strings", "1.37,v1.37,kube=1.37", "Keelson is v1.37, and emulates no earlier version"},
	{"emulation-forward-compatible", "bool", "false", "Keelson emulates no earlier version: leave it out"},
	{"enable-garbage-collector", "bool", "true", "the garbage collector is always on: delete with --cascade=orphan where dependents are to stay"},
	{"endpoint-reconciler-type", "string", "lease", "the addresses behind the Service kubernetes are kept by leases: leave it out"},
	{"etcd-servers-overrides", "strings", "", "all resources are in one store: leave it out"},
	{"log-json-info-buffer-size", "quantity", "0", "the log is text: leave it out"},
	{"log-json-split-stream", "bool", "false", "the log is text: leave it out"},
	{"log-text-info-buffer-size", "quantity", "0", "the log is not buffered: leave it out"},
	{"log-text-split-stream", "bool", "false", "the log goes to the standard error: leave it out"},
	{"logging-format", "string", "text", "the log is text: leave it out"},
	{"max-connection-bytes-per-sec", "int", "0", "connections are not throttled: use a proxy that does"},
	{"min-compatibility-version", "strings", "1.36,v1.36,kube=1.36", "Keelson is v1.37, and emulates no earlier version"},
	{"peer-advertise-ip", "ip", "", "requests are not passed on between servers (the alpha feature UnknownVersionInteroperabilityProxy): run one version of them"},
	{"peer-advertise-port", "string", "", "requests are not passed on between servers (the alpha feature UnknownVersionInteroperabilityProxy): run one version of them"},
	{"peer-ca-file", "string", "", "requests are not passed on between servers (the alpha feature UnknownVersionInteroperabilityProxy): run one version of them"},
	{"runtime-config-emulation-forward-compatible", "bool", "false", "Keelson emulates no earlier version: leave it out"},
	{"service-account-lookup", "bool", "true", "tokens of deleted accounts, pods and secrets are never accepted: leave it out"},
	{"show-hidden-metrics-for-version", "string", "", "no metrics are hidden: leave it out"},
	{"shutdown-watch-termination-grace-period", "duration", "0s", "watches are ended at once, after they have sent their events, and clients resume them: leave it out"},
	{"storage-backend", "string", "etcd3", "objects are in the embedded store, or in etcd (version 3) with --etcd-servers"},
	{"storage-media-type", "string", "application/vnd.kubernetes.protobuf", "objects are stored as upstream stores them by default: leave it out"},
	{"watch-cache", "bool", "true", "reads and watches are always served from memory, and are as fresh as the store: leave it out"},
}

// hintFlags are flags that have no effect: they are accepted with a warning that
// says so.
var hintFlags = []noEffect{
	{"default-watch-cache-size", "int", "100", "all objects are in memory, with the last changes"},
	{"delete-collection-workers", "int", "1", "objects are deleted one after the other, as upstream does by default"},
	{"enable-aggregator-routing", "bool", "true", "requests always go to endpoints"},
	{"etcd-count-metric-poll-period", "duration", "1m0s", "objects are counted when the metric is read"},
	{"etcd-db-metric-poll-interval", "duration", "30s", "there is no metric of the size of the database"},
	{"etcd-healthcheck-timeout", "duration", "2s", "the health of the store is known without asking"},
	{"etcd-readycheck-timeout", "duration", "2s", "the health of the store is known without asking"},
	{"lease-reuse-duration-seconds", "int", "60", "expired objects are removed one by one"},
	{"livez-grace-period", "duration", "0s", "the server listens when its start is done"},
	{"log-flush-frequency", "duration", "5s", "the log is not buffered"},
	{"storage-initialization-timeout", "duration", "1m0s", "the server listens when its store is open"},
	{"watch-cache-sizes", "strings", "", "all objects are in memory, with the last changes"},
}

// addFixedFlags adds flags of upstream that Keelson accepts with one value only, and
// flags that have no effect.
func addFixedFlags(flags *pflag.FlagSet, fixed []fixedValue, without []noEffect) {
	for _, f := range fixed {
		t := &fixedFlag{why: f.why, kind: f.kind}
		usage := "not supported: " + f.why
		if f.only != "" {
			t.only = strings.Split(f.only, ",")
			usage = "only " + t.only[0] + ": " + f.why
		}
		add(flags, t, f.name, usage)
	}
	for _, f := range without {
		add(flags, &hint{f.value, f.why, f.kind}, f.name, "without effect: "+f.why)
	}
}

func add(flags *pflag.FlagSet, v pflag.Value, name, usage string) {
	fl := flags.VarPF(v, name, "", usage)
	fl.Hidden = true // in --help; the reference has them
	if v.Type() == "bool" {
		fl.NoOptDefVal = "true"
	}
}

// withoutEffect returns the flags that have been set and change nothing.
func withoutEffect(flags *pflag.FlagSet) (out []string) {
	flags.Visit(func(fl *pflag.Flag) {
		if h, ok := fl.Value.(*hint); ok {
			out = append(out, fmt.Sprintf("--%s is without effect: %s", fl.Name, h.why))
		}
	})
	return out
}
