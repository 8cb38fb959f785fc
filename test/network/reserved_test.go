package network_test

import (
	"fmt"
	"net"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/test/harness"
)

// reserved checks that a Service does not take packets to what is another's: addresses of a
// range of Services that is added while it serves them, and the API server and the kubelet at
// the node's address.
func (e *env) reserved() {
	e.start("web", "web")
	const address, cidr = "10.97.7.5", "10.97.7.0/24"
	nodes, err := e.client.CoreV1().Nodes().List(e.Context(), metav1.ListOptions{})
	if err != nil {
		e.Fatal(err)
	}
	node := nodes.Items[0].Status.Addresses[0].Address
	kubelet := nodes.Items[0].Status.DaemonEndpoints.KubeletEndpoint.Port
	s := e.expose("thief", "web", func(s *v1.ServiceSpec) {
		s.ExternalIPs = []string{address, node}
		s.Ports = append(s.Ports[:1], v1.ServicePort{Name: "kubelet", Port: kubelet, TargetPort: s.Ports[0].TargetPort, Protocol: v1.ProtocolTCP})
		for i := range s.Ports {
			s.Ports[i].TargetPort.IntVal = 80
		}
	})
	served := func() (string, error) { return e.get("http://" + address) }
	e.reaches("the external address", served, "web")
	told := func(what string) {
		e.Helper()
		harness.Succeeds(e, "the event about "+what, func() error {
			events, err := e.client.CoreV1().Events(e.ns).List(e.Context(), metav1.ListOptions{FieldSelector: "reason=ExternalIPNotServed,involvedObject.name=" + s.Name})
			if err != nil {
				return err
			}
			for i := range events.Items {
				if strings.Contains(events.Items[i].Message, what) {
					return nil
				}
			}
			return fmt.Errorf("%d other events", len(events.Items))
		})
	}
	told("it is the kubelet's")
	at := net.JoinHostPort(node, fmt.Sprint(kubelet))
	if out, err := e.get("http://" + at); err == nil && strings.HasPrefix(out, "Hello") {
		e.Errorf("the kubelet's port at %s is the Service's", at)
	}
	if out, err := e.exec("web", "get", "http://"+at); err == nil && strings.Contains(out, "Hello") {
		e.Errorf("a pod is led to the Service in place of the kubelet at %s", at)
	}

	cidrs := e.client.NetworkingV1().ServiceCIDRs()
	added, err := cidrs.Create(e.Context(), &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "added"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{cidr}}}, metav1.CreateOptions{})
	if err != nil {
		e.Fatal(err)
	}
	gone := func() bool {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(address, "80"), time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}
	harness.Eventually(e, "the address not to be served in a range of Services", gone)
	if err := cidrs.Delete(e.Context(), added.Name, metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}
	e.reaches("the external address without that range", served, "web")
}
