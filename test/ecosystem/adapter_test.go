package ecosystem

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/cert"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider/helpers"

	"keelson.dev/keelson/test/harness"
)

// adapter is a provider of metrics whose values a test sets.
type adapter struct {
	mapper  meta.RESTMapper
	dynamic dynamic.Interface

	mu     sync.Mutex
	values map[string]int64 // by the metric's name, that of each object
}

func (a *adapter) set(metric string, value int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.values[metric] = value
}

func (a *adapter) value(metric string) (*resource.Quantity, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v, ok := a.values[metric]
	return resource.NewQuantity(v, resource.DecimalSI), ok
}

// GetMetricByName implements provider.CustomMetricsProvider.
func (a *adapter) GetMetricByName(_ context.Context, name types.NamespacedName, info provider.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	v, ok := a.value(info.Metric)
	if !ok {
		return nil, provider.NewMetricNotFoundForError(info.GroupResource, info.Metric, name.Name)
	}
	object, err := helpers.ReferenceFor(a.mapper, name, info)
	if err != nil {
		return nil, err
	}
	m := &custom_metrics.MetricValue{DescribedObject: object, Metric: custom_metrics.MetricIdentifier{Name: info.Metric}, Timestamp: metav1.Now(), Value: *v}
	if !selector.Empty() {
		if m.Metric.Selector, err = metav1.ParseToLabelSelector(selector.String()); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// GetMetricBySelector implements provider.CustomMetricsProvider.
func (a *adapter) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector, info provider.CustomMetricInfo, metric labels.Selector) (*custom_metrics.MetricValueList, error) {
	names, err := helpers.ListObjectNames(a.mapper, a.dynamic, namespace, selector, info)
	if err != nil {
		return nil, err
	}
	l := &custom_metrics.MetricValueList{}
	for _, name := range names {
		v, err := a.GetMetricByName(ctx, types.NamespacedName{Namespace: namespace, Name: name}, info, metric)
		if err != nil {
			return nil, err
		}
		l.Items = append(l.Items, *v)
	}
	return l, nil
}

// ListAllMetrics implements provider.CustomMetricsProvider.
func (a *adapter) ListAllMetrics() []provider.CustomMetricInfo {
	return []provider.CustomMetricInfo{
		{GroupResource: schema.GroupResource{Resource: "pods"}, Namespaced: true, Metric: "requests"},
		{GroupResource: schema.GroupResource{Resource: "services"}, Namespaced: true, Metric: "orders"},
	}
}

// GetExternalMetric implements provider.ExternalMetricsProvider. Each queue is as long as
// the others.
func (a *adapter) GetExternalMetric(_ context.Context, _ string, selector labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	v, ok := a.value(info.Metric)
	if !ok {
		return nil, provider.NewMetricNotFoundError(schema.GroupResource{}, info.Metric)
	}
	l := &external_metrics.ExternalMetricValueList{}
	for _, queue := range []string{"blue", "green"} {
		of := map[string]string{"queue": queue}
		if selector.Matches(labels.Set(of)) {
			l.Items = append(l.Items, external_metrics.ExternalMetricValue{MetricName: info.Metric, MetricLabels: of, Timestamp: metav1.Now(), Value: *v})
		}
	}
	return l, nil
}

// ListAllExternalMetrics implements provider.ExternalMetricsProvider.
func (a *adapter) ListAllExternalMetrics() (out []provider.ExternalMetricInfo) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(a.values)) {
		out = append(out, provider.ExternalMetricInfo{Metric: name})
	}
	return out
}

// install is what an adapter's manifests have: its account with its rights, and the Service
// and the APIServices behind which it is, at an address and a port, with the certificate
// of its authority in base64.
const install = `
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: adapter, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "adapter:system:auth-delegator"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: adapter, namespace: monitoring}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: adapter-auth-reader, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: adapter, namespace: monitoring}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: adapter}
rules: [{apiGroups: [""], resources: [pods, services, namespaces], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: adapter}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: adapter}
subjects: [{kind: ServiceAccount, name: adapter, namespace: monitoring}]
---
apiVersion: v1
kind: Service
metadata: {name: adapter, namespace: monitoring}
spec: {ports: [{port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: adapter-1, namespace: monitoring, labels: {kubernetes.io/service-name: adapter}}
addressType: IPv4
endpoints: [{addresses: [%[1]s]}]
ports: [{name: "", port: %[2]d}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta2.custom.metrics.k8s.io}
spec:
  group: custom.metrics.k8s.io
  version: v1beta2
  groupPriorityMinimum: 100
  versionPriority: 200
  caBundle: %[3]s
  service: {name: adapter, namespace: monitoring}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.external.metrics.k8s.io}
spec:
  group: external.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  caBundle: %[3]s
  service: {name: adapter, namespace: monitoring}
`

// startAdapter starts an adapter that the library makes, and installs it.
func (k *keelson) startAdapter() *adapter {
	k.Helper()
	address := k.address()
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("adapter.monitoring.svc", nil, nil)
	if err != nil {
		k.Fatal(err)
	}
	dir := k.TempDir()
	for name, data := range map[string][]byte{"crt": certPEM, "key": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			k.Fatal(err)
		}
	}
	k.kubectl(fmt.Sprintf(install, address.IP, address.Port, base64.StdEncoding.EncodeToString(certPEM)), "apply", "-f", "-")
	me := k.as("monitoring", "adapter")
	b := &cmd.AdapterBase{Name: "adapter", FlagSet: pflag.NewFlagSet("adapter", pflag.ContinueOnError)}
	if err := b.Flags().Parse([]string{"--bind-address=" + address.IP.String(), "--secure-port=" + strconv.Itoa(address.Port), "--tls-cert-file=" + dir + "/crt", "--tls-private-key-file=" + dir + "/key",
		"--lister-kubeconfig=" + me, "--authentication-kubeconfig=" + me, "--authorization-kubeconfig=" + me}); err != nil {
		k.Fatal(err)
	}
	a := &adapter{values: map[string]int64{}}
	if a.mapper, err = b.RESTMapper(); err != nil {
		k.Fatal(err)
	}
	if a.dynamic, err = b.DynamicClient(); err != nil {
		k.Fatal(err)
	}
	b.WithCustomMetrics(a)
	b.WithExternalMetrics(a)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	k.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			k.Errorf("the adapter ended: %v", err)
		}
	})
	k.kubectl("", "wait", "--for=condition=Available", "--timeout=60s", "apiservice/v1beta2.custom.metrics.k8s.io", "apiservice/v1beta1.external.metrics.k8s.io")
	return a
}

// address finds a free port at an address that is not of loopback: no endpoint may be that.
func (k *keelson) address() *net.TCPAddr {
	k.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		k.Fatal(err)
	}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: ip.IP})
			if err != nil {
				k.Fatal(err)
			}
			defer l.Close()
			return l.Addr().(*net.TCPAddr)
		}
	}
	k.Fatal("this machine has no IPv4 address but those of loopback: an adapter needs one to be an endpoint of a Service")
	return nil
}

// scales waits until each of these Deployments has so many replicas.
func (k *keelson) scales(want map[string]string) {
	k.Helper()
	defer func() {
		if k.Failed() {
			k.Log(k.kubectl("", "describe", "hpa"))
		}
	}()
	harness.Succeeds(k, "the replicas", func() error {
		got := map[string]string{}
		for name := range want {
			got[name] = k.kubectl("", "get", "deployment/"+name, "-o", "jsonpath={.spec.replicas}")
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("they are %v, not %v", got, want)
		}
		return nil
	})
}

// contains fails the test where a text lacks one of want.
func (k *keelson) contains(text string, want ...string) {
	k.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			k.Errorf("%q is not in %s", w, text)
		}
	}
}

// autoscaled is a Deployment with an autoscaler: its name, its least number of replicas and its metric.
const autoscaled = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: c, image: c}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: %[1]s, namespace: default}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: %[2]d
  maxReplicas: 5
  metrics: [%[3]s]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
---
`

// TestCustomMetrics scales by metrics of pods, of an object and of nothing in the cluster,
// which an adapter serves.
func TestCustomMetrics(t *testing.T) {
	k := start(t)
	a := k.startAdapter()
	a.set("requests", 10)
	a.set("orders", 10)
	a.set("waiting", 5)
	k.kubectl("{apiVersion: v1, kind: Service, metadata: {name: shop, namespace: default}, spec: {ports: [{port: 80}]}}", "apply", "-f", "-")
	k.kubectl(fmt.Sprintf(autoscaled, "by-pods", 1, "{type: Pods, pods: {metric: {name: requests}, target: {type: AverageValue, averageValue: 10}}}")+
		fmt.Sprintf(autoscaled, "by-object", 0, "{type: Object, object: {metric: {name: orders}, describedObject: {apiVersion: v1, kind: Service, name: shop}, target: {type: AverageValue, averageValue: 10}}}")+
		fmt.Sprintf(autoscaled, "by-external", 0, "{type: External, external: {metric: {name: waiting, selector: {matchLabels: {queue: blue}}}, target: {type: AverageValue, averageValue: 5}}}"),
		"apply", "-f", "-")
	k.scales(map[string]string{"by-pods": "1", "by-object": "1", "by-external": "1"})

	// What the adapter serves is an API as any other.
	for _, c := range [][2]string{
		{"/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/shop/orders", `"value":"10"`},
		{"/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/requests?labelSelector=app%3Dby-pods", `"kind":"Pod"`},
		{"/apis/external.metrics.k8s.io/v1beta1/namespaces/default/waiting?labelSelector=queue%3Dblue", `"value":"5"`},
		{"/apis/external.metrics.k8s.io/v1beta1", `"name":"waiting"`},
	} {
		k.contains(k.kubectl("", "get", "--raw", c[0]), c[1])
	}

	a.set("requests", 30)
	a.set("orders", 45)
	a.set("waiting", 16)
	k.scales(map[string]string{"by-pods": "5", "by-object": "5", "by-external": "4"})
	k.contains(k.kubectl("", "get", "hpa"), "30/10 ", "9/10 (avg)", "4/5 (avg)")

	a.set("requests", 1)
	a.set("orders", 0)
	a.set("waiting", 0)
	k.scales(map[string]string{"by-pods": "1", "by-object": "0", "by-external": "0"})
	k.kubectl("", "wait", "--for=condition=ScaledToZero", "hpa/by-object", "hpa/by-external")

	a.set("orders", 25)
	a.set("waiting", 6)
	k.scales(map[string]string{"by-pods": "1", "by-object": "3", "by-external": "2"})
}
