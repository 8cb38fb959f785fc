package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keelson.dev/keelson/internal/node/kubeletconfig"
)

// upstreamFlags are the flags of kube-apiserver v1.37.
const upstreamFlags = `admission-control-config-file advertise-address aggregator-reject-forwarding-redirect allow-metric-labels allow-metric-labels-manifest allow-privileged
anonymous-auth api-audiences apiserver-count audit-log-batch-buffer-size audit-log-batch-max-size audit-log-batch-max-wait audit-log-batch-throttle-burst
audit-log-batch-throttle-enable audit-log-batch-throttle-qps audit-log-compress audit-log-format audit-log-maxage audit-log-maxbackup audit-log-maxsize audit-log-mode
audit-log-path audit-log-truncate-enabled audit-log-truncate-max-batch-size audit-log-truncate-max-event-size audit-log-version audit-policy-file
audit-webhook-batch-buffer-size audit-webhook-batch-max-size audit-webhook-batch-max-wait audit-webhook-batch-throttle-burst audit-webhook-batch-throttle-enable
audit-webhook-batch-throttle-qps audit-webhook-config-file audit-webhook-initial-backoff audit-webhook-mode audit-webhook-truncate-enabled
audit-webhook-truncate-max-batch-size audit-webhook-truncate-max-event-size audit-webhook-version authentication-config authentication-token-webhook-cache-ttl
authentication-token-webhook-config-file authentication-token-webhook-version authorization-config authorization-mode authorization-policy-file
authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl authorization-webhook-config-file authorization-webhook-version bind-address
cert-dir client-ca-file contention-profiling coordinated-leadership-lease-duration coordinated-leadership-renew-deadline coordinated-leadership-retry-period
cors-allowed-origins debug-socket-path default-not-ready-toleration-seconds default-unreachable-toleration-seconds default-watch-cache-size
delete-collection-workers disable-admission-plugins disable-http2-serving disabled-metrics egress-selector-config-file emulated-version emulation-forward-compatible
enable-admission-plugins enable-aggregator-routing enable-bootstrap-token-auth enable-garbage-collector enable-logs-handler enable-priority-and-fairness
encryption-provider-config encryption-provider-config-automatic-reload endpoint-reconciler-type etcd-cafile etcd-certfile etcd-compaction-interval
etcd-count-metric-poll-period etcd-db-metric-poll-interval etcd-healthcheck-timeout etcd-keyfile etcd-prefix etcd-readycheck-timeout etcd-servers
etcd-servers-overrides event-ttl external-hostname feature-gates goaway-chance http2-max-streams-per-connection kubelet-certificate-authority
kubelet-client-certificate kubelet-client-key kubelet-preferred-address-types kubelet-timeout kubernetes-service-node-port lease-reuse-duration-seconds
livez-grace-period log-flush-frequency log-json-info-buffer-size log-json-split-stream log-text-info-buffer-size log-text-split-stream logging-format
max-connection-bytes-per-sec max-mutating-requests-inflight max-requests-inflight min-compatibility-version min-request-timeout oidc-ca-file oidc-client-id
oidc-groups-claim oidc-groups-prefix oidc-issuer-url oidc-required-claim oidc-signing-algs oidc-username-claim oidc-username-prefix peer-advertise-ip
peer-advertise-port peer-ca-file permit-address-sharing permit-port-sharing profiling proxy-client-cert-file proxy-client-key-file request-timeout
requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix requestheader-group-headers requestheader-uid-headers
requestheader-username-headers runtime-config runtime-config-emulation-forward-compatible secure-port service-account-extend-token-expiration
service-account-issuer service-account-jwks-uri service-account-key-file service-account-lookup service-account-max-token-expiration
service-account-signing-endpoint service-account-signing-key-file service-cluster-ip-range service-node-port-range show-hidden-metrics-for-version
shutdown-delay-duration shutdown-send-retry-after shutdown-watch-termination-grace-period storage-backend storage-initialization-timeout storage-media-type
strict-transport-security-directives tls-cert-file tls-cipher-suites tls-curve-preferences tls-min-version tls-private-key-file tls-sni-cert-key token-auth-file
tracing-config-file v version vmodule watch-cache watch-cache-sizes`

// TestUpstreamFlags checks that every flag of kube-apiserver is known.
func TestUpstreamFlags(t *testing.T) {
	f, c := &serverFlags{}, &cobra.Command{}
	f.add(c)
	for _, name := range strings.Fields(upstreamFlags) {
		if c.Flags().Lookup(name) == nil {
			t.Errorf("--%s is unknown", name)
		}
	}
}

// upstreamControllerFlags are the flags of kube-controller-manager v1.37.
const upstreamControllerFlags = `allocate-node-cidrs allow-metric-labels allow-metric-labels-manifest allow-untagged-cloud attach-detach-reconcile-sync-period
authentication-kubeconfig authentication-skip-lookup authentication-token-webhook-cache-ttl authentication-tolerate-lookup-failure authorization-always-allow-paths
authorization-kubeconfig authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl bind-address cert-dir cidr-allocator-type client-ca-file
cloud-config cloud-provider cluster-cidr cluster-name cluster-signing-cert-file cluster-signing-duration cluster-signing-key-file
cluster-signing-kube-apiserver-client-cert-file cluster-signing-kube-apiserver-client-key-file cluster-signing-kubelet-client-cert-file
cluster-signing-kubelet-client-key-file cluster-signing-kubelet-serving-cert-file cluster-signing-kubelet-serving-key-file cluster-signing-legacy-unknown-cert-file
cluster-signing-legacy-unknown-key-file concurrent-cron-job-syncs concurrent-daemonset-syncs concurrent-deployment-syncs concurrent-device-taint-eviction-syncs
concurrent-endpoint-syncs concurrent-ephemeralvolume-syncs concurrent-gc-syncs concurrent-horizontal-pod-autoscaler-syncs concurrent-job-syncs
concurrent-namespace-syncs concurrent-rc-syncs concurrent-replicaset-syncs concurrent-resource-claim-syncs concurrent-resource-quota-syncs
concurrent-service-endpoint-syncs concurrent-service-syncs concurrent-serviceaccount-token-syncs concurrent-statefulset-syncs concurrent-ttl-after-finished-syncs
concurrent-validating-admission-policy-status-syncs concurrent_rc_syncs configure-cloud-routes contention-profiling controller-start-interval controllers
disable-attach-detach-reconcile-sync disable-force-detach-on-timeout disable-http2-serving disabled-metrics emulated-version emulation-forward-compatible
enable-dynamic-provisioning enable-garbage-collector enable-hostpath-provisioner enable-leader-migration endpoint-updates-batch-period
endpointslice-updates-batch-period external-cloud-volume-plugin feature-gates flex-volume-plugin-dir horizontal-pod-autoscaler-cpu-initialization-period
horizontal-pod-autoscaler-downscale-stabilization horizontal-pod-autoscaler-initial-readiness-delay horizontal-pod-autoscaler-sync-period
horizontal-pod-autoscaler-tolerance http2-max-streams-per-connection kube-api-burst kube-api-content-type kube-api-qps kubeconfig large-cluster-size-threshold
leader-elect leader-elect-lease-duration leader-elect-renew-deadline leader-elect-resource-lock leader-elect-resource-name leader-elect-resource-namespace
leader-elect-retry-period leader-migration-config legacy-service-account-token-clean-up-period log-flush-frequency log-json-info-buffer-size log-json-split-stream
log-text-info-buffer-size log-text-split-stream logging-format master max-endpoints-per-slice min-compatibility-version min-resync-period
mirroring-concurrent-service-endpoint-syncs mirroring-endpointslice-updates-batch-period mirroring-max-endpoints-per-subset namespace-sync-period node-cidr-mask-size
node-cidr-mask-size-ipv4 node-cidr-mask-size-ipv6 node-eviction-rate node-monitor-grace-period node-monitor-period node-startup-grace-period
permit-address-sharing permit-port-sharing profiling pv-recycler-increment-timeout-nfs pv-recycler-minimum-timeout-hostpath pv-recycler-minimum-timeout-nfs
pv-recycler-pod-template-filepath-hostpath pv-recycler-pod-template-filepath-nfs pv-recycler-timeout-increment-hostpath pvclaimbinder-sync-period
requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix requestheader-group-headers requestheader-uid-headers
requestheader-username-headers resource-quota-sync-period root-ca-file route-reconciliation-period secondary-node-eviction-rate secure-port
service-account-private-key-file service-cluster-ip-range show-hidden-metrics-for-version terminated-pod-gc-threshold tls-cert-file tls-cipher-suites
tls-curve-preferences tls-min-version tls-private-key-file tls-sni-cert-key unhealthy-zone-threshold use-service-account-credentials v version vmodule`

// TestUpstreamControllerFlags checks that every flag of kube-controller-manager is known,
// and those that cannot be are refused before anything starts.
func TestUpstreamControllerFlags(t *testing.T) {
	f := &controllersFlags{}
	c := &cobra.Command{}
	group(c, f.sets())
	for _, name := range strings.Fields(upstreamControllerFlags) {
		if c.Flags().Lookup(name) == nil {
			t.Errorf("--%s is unknown", name)
		}
	}
	for _, x := range []struct{ args, want string }{
		{"--node-eviction-rate=0.5 --concurrent-job-syncs=20 --horizontal-pod-autoscaler-tolerance=0.2", ""},
		{"--node-monitor-period=0s", "--node-monitor-period: want a time greater than 0"},
		{"--concurrent-gc-syncs=0", "--concurrent-gc-syncs: want a number greater than 0"},
		{"--concurrent-gc-syncs=many", `want a number, found "many"`},
		{"--unhealthy-zone-threshold=2", "--unhealthy-zone-threshold: want a part from 0 to 1"},
		{"--enable-dynamic-provisioning=false", "always get volumes"},
		{"--cloud-provider=gce", "there is no built-in cloud provider"},
		{"--cloud-provider=external --configure-cloud-routes=false --profiling=false", ""},
	} {
		f, c := &controllersFlags{}, &cobra.Command{SilenceUsage: true}
		group(c, f.sets())
		err := c.ParseFlags(strings.Fields(x.args))
		if err == nil {
			err = f.Tuning.Validate()
		}
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v, want %q", x.args, err, x.want)
		}
	}
}

// TestReference checks that docs/flags.md documents the flags as they are.
func TestReference(t *testing.T) {
	var want bytes.Buffer
	printReference(&want)
	have, err := os.ReadFile("../../docs/flags.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want.Bytes()) {
		t.Error("docs/flags.md is not what the flags are: run go run ./cmd/keelson reference > docs/flags.md")
	}
}

// parse reads args as keelson server does.
func parse(args ...string) (*serverFlags, *cobra.Command, error) {
	f, c := &serverFlags{}, &cobra.Command{SilenceUsage: true}
	f.add(c)
	return f, c, c.ParseFlags(args)
}

func TestRefusedFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--storage-backend=etcd3", ""},
		{"--storage-backend=etcd2", `invalid argument "etcd2" for "--storage-backend" flag: objects are in the embedded store`},
		{"--watch-cache=false", "always served from memory"},
		{"--watch-cache", ""},
		{"--allow-privileged", ""},
		{"--authorization-policy-file=x", "there is no ABAC authorizer: use --authorization-mode=RBAC"},
		{"--emulated-version=1.36", "Keelson is v1.37"},
		{"--emulated-version=1.37", ""},
		{"--feature-gates=APIResponseCompression=true", ""},
		{"--feature-gates=APIResponseCompression=false", "APIResponseCompression=false: Keelson always has this feature, which is on by default in v1.37"},
		{"--feature-gates=ComponentStatusz=false,ConstrainedImpersonation=false", ""},
		{"--feature-gates=GangScheduling=true", "GangScheduling=true: Keelson does not have this feature, which is off by default in v1.37"},
		{"--feature-gates=GangScheduling=false,ClusterTrustBundle=true", ""},
		{"--feature-gates=Unheard=true", "unrecognized feature gate: Unheard"},
		{"--feature-gates=Unheard", "missing bool value for Unheard"},
		{"--bind-address=127.0.0.1 --secure-port=7443", ""},
		{"--bind-address=127.0.0.1 --listen=:1", "give one of both"},
		{"--bind-address=here", `--bind-address "here": give an IP address`},
		{"--secure-port=0", "--secure-port 0 must be between 1 and 65535, inclusive"},
		{"--service-cluster-ip-range=10.0.0.0/16,10.1.0.0/16", "must be of different IP family"},
		{"--service-cluster-ip-range=10.0.0.0/16,fd00::/108,fd01::/108", "must not contain more than two entries"},
		{"--service-node-port-range=9-1", "--service-node-port-range"},
		{"--kubernetes-service-node-port=80", "is not in the range of --service-node-port-range, 30000-32767"},
		{"--runtime-config=api/all=true,api/beta=false,batch/v1=true", ""},
		{"--runtime-config=batch/v2alpha1=true", `of group "batch" it serves v1`},
		{"--runtime-config=no.such/v1=true", "unknown api groups no.such"},
		{"--runtime-config=apps/v1=maybe", "invalid value of: apps/v1: maybe"},
		{"--tls-cert-file=x", "must be specified together"},
		{"--tls-sni-cert-key=x", "expected comma separated certificate and key file paths"},
		{"--cors-allowed-origins=example.com", "does not pin to start/end of host"},
		{"--cors-allowed-origins=//example\\.com(:|$)", ""},
		{"--service-account-max-token-expiration=10m", "must be between 1 hour and 2^32 seconds"},
		{"--service-account-jwks-uri=http://x", "requires https scheme"},
		{"--service-account-issuer=a --service-account-issuer=a", "already specified"},
		{"--service-account-signing-key-file=x", "service-account-key-file is a required flag"},
		{"--kubelet-client-certificate=x", "must be specified together"},
		{"--kubelet-preferred-address-types=Moon", "there are Hostname"},
		{"--min-request-timeout=-1", "--min-request-timeout can not be a negative value"},
		{"--min-request-timeout=0", ""},
		{"--default-unreachable-toleration-seconds=-1", "--default-unreachable-toleration-seconds can not be a negative value"},
		{"--anonymous-auth --profiling --enable-logs-handler=false --etcd-compaction-interval=0", ""},
		{"--anonymous-auth=no", "invalid argument"},
		{"--event-ttl=-1s", "--event-ttl can not be a negative value"},
	} {
		f, cmd, err := parse(strings.Fields(c.args)...)
		if err == nil {
			_, err = f.options(cmd.Flags())
		}
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.args, err, c.want)
		}
	}
}

func TestFlagsWithoutEffect(t *testing.T) {
	_, c, err := parse("--watch-cache-sizes=pods#1000", "--v=2")
	if err != nil {
		t.Fatal(err)
	}
	if got := withoutEffect(c.Flags()); len(got) != 1 || !strings.HasPrefix(got[0], "--watch-cache-sizes is without effect: ") {
		t.Errorf("told %q", got)
	}
}

func TestAPIServerOptions(t *testing.T) {
	f, c, err := parse("--bind-address=::1", "--secure-port=7443", "--service-node-port-range=40000-40010", "--kubernetes-service-node-port=40001", "--default-not-ready-toleration-seconds=5",
		"--service-account-issuer=https://a", "--service-account-issuer=b", "--service-account-extend-token-expiration=false", "--service-cluster-ip-range=10.9.0.0/24", "--profiling=false", "--min-request-timeout=60")
	if err != nil {
		t.Fatal(err)
	}
	o, err := f.options(c.Flags())
	if err != nil {
		t.Fatal(err)
	}
	if o.Listen != "[::1]:7443" || o.API.NodePorts.String() != "40000-40010" || o.API.NodePort != 40001 || *o.Admission.NotReadySeconds != 5 || *o.Admission.UnreachableSeconds != 300 ||
		strings.Join(o.Tokens.Issuers, " ") != "https://a b" || !o.Tokens.NoExtension || o.ServiceCIDR.String() != "10.9.0.0/24" || !o.API.NoProfiling || o.API.MinRequestTimeout.Seconds() != 60 {
		t.Errorf("options %+v", o)
	}
}

func TestNodeFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", ""},
		{"--kube-reserved=cpu=200m,memory=500Mi --kube-reserved=ephemeral-storage=1Gi", ""},
		{"--system-reserved=pid=100", `cannot reserve "pid" resource`},
		{"--system-reserved=cpu=-1", "cannot be negative"},
		{"--system-reserved=cpu", "must be formatted as key=value"},
		{"--container-log-max-size=0", "give a size like 10Mi"},
		{"--container-log-max-files=1", "at least 2 are needed"},
		{"--pod-cidr=10.0.0.1", "give a range like 10.244.0.0/24"},
		{"--cgroup-driver=other", "--cgroup-driver"},
		{"--eviction-hard=memory.available", "expect string<string"},
		{"--eviction-soft=memory.available<1Gi", "grace period"},
		{"--image-gc-low-threshold=90", "must be less than"},
		{"--proxy=kube", "give builtin or none"},
	} {
		f, _, err := parse(strings.Fields(c.args)...)
		if err == nil {
			_, err = f.node.options("")
		}
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.args, err, c.want)
		}
	}
	f, _, err := parse("--kube-reserved=cpu=200m,memory=500Mi", "--kube-reserved=memory=1Gi", "--container-log-max-size=20Mi", "--pod-cidr=10.9.0.0/24", "--eviction-hard=memory.available<1Gi")
	if err != nil {
		t.Fatal(err)
	}
	o, err := f.node.options("/d")
	if err != nil {
		t.Fatal(err)
	}
	if o.KubeReserved.Cpu().String() != "200m" || o.KubeReserved.Memory().String() != "1Gi" || o.LogMaxSize != 20<<20 || o.StaticPods != "/d/manifests" || o.MaxPods != 110 ||
		len(o.Eviction.Hard) != 1 || f.node.runtime.PodCIDRs[0].String() != "10.9.0.0/24" {
		t.Errorf("options %+v, runtime %+v", o, f.node.runtime)
	}
}

// TestKubeletConfiguration checks that the file sets what the command line does
// not.
func TestKubeletConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubelet.yaml")
	text := "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\nport: 10251\nevictionHard: {memory.available: 1Gi}\ncontainerRuntimeEndpoint: unix:///run/x.sock\n" +
		"registerWithTaints: [{key: k, value: v, effect: NoSchedule}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, _, err := parse("--config="+file, "--max-pods=7", "--node-labels=zone=a")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range kubeletconfig.Flags() {
		if !slices.ContainsFunc(slices.Collect(maps.Values(f.node.sets.FlagSets)), func(s *pflag.FlagSet) bool { return s.Lookup(name) != nil }) {
			t.Errorf("a field of the configuration sets --%s, which a node does not have", name)
		}
	}
	for range 2 {
		o, err := f.node.options("/d")
		if err != nil {
			t.Fatal(err)
		}
		if o.MaxPods != 7 || o.Port != 10251 || len(o.Eviction.Hard) != 1 || len(o.Taints) != 1 || o.Taints[0].Key != "k" || o.Labels["zone"] != "a" || f.node.runtime.Runtime != "unix:///run/x.sock" {
			t.Errorf("options %+v, runtime %+v", o, f.node.runtime)
		}
	}
}
