package network_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realnode"
)

// BenchmarkNames measures the time from the API server's answer to the creation of a Service,
// or of an endpoint of a headless one, to the name server's answer with it; its agent has a
// kubeconfig only.
func BenchmarkNames(b *testing.B) {
	n := realnode.StartApart(b, agent.Options{})
	client := kubernetes.NewForConfigOrDie(n.Config)
	kubeDNS, err := client.CoreV1().Services(metav1.NamespaceSystem).Get(b.Context(), "kube-dns", metav1.GetOptions{})
	if err != nil {
		b.Fatal(err)
	}
	server := net.JoinHostPort(kubeDNS.Spec.ClusterIP, "53")
	udp := &dns.Client{Timeout: time.Second}
	// visible waits until the name has addresses.
	visible := func(name string) {
		b.Helper()
		q := new(dns.Msg)
		q.SetQuestion(name+".default.svc.cluster.local.", dns.TypeA)
		for limit := time.Now().Add(harness.Patience); ; {
			if m, _, err := udp.ExchangeContext(b.Context(), q, server); err == nil && len(m.Answer) > 0 {
				return
			} else if time.Now().After(limit) {
				b.Fatalf("%s: %v %v", name, m, err)
			}
			time.Sleep(time.Millisecond / 2)
		}
	}
	visible("kubernetes")
	service := func(name, ip string) {
		b.Helper()
		s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceSpec{ClusterIP: ip, Ports: []v1.ServicePort{{Port: 80}}}}
		if _, err := client.CoreV1().Services("default").Create(b.Context(), s, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	measure := func(name string, begin func(name string), create func(name string)) {
		b.Run(name, func(b *testing.B) {
			var slowest time.Duration
			for i := range b.N {
				b.StopTimer()
				x := fmt.Sprintf("%s-%d-%d", name, b.N, i)
				begin(x)
				create(x)
				b.StartTimer()
				at := time.Now()
				visible(x)
				slowest = max(slowest, time.Since(at))
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/op")
			b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-ms")
		})
	}
	measure("service", func(string) {}, func(name string) { service(name, "") })
	measure("endpoint", func(name string) { service(name, v1.ClusterIPNone) }, func(name string) {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}}, AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.7"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}}}
		if _, err := client.DiscoveryV1().EndpointSlices("default").Create(b.Context(), s, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	})
}
