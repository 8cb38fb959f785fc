package network_test

import (
	"fmt"
	"net"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"keelson.dev/keelson/test/harness"
)

// balancers checks that a Service of the type LoadBalancer is reached at the
// node's own address.
func (e *env) balancers() {
	a := e.start("web", "a")[0]
	balanced := func(s *v1.ServiceSpec) { s.Type = v1.ServiceTypeLoadBalancer }
	e.expose("one", "web", balanced)
	addresses := func(name string) string {
		s, err := e.client.CoreV1().Services(e.ns).Get(e.Context(), name, metav1.GetOptions{})
		if err != nil {
			e.Fatal(err)
		}
		var out []string
		for _, in := range s.Status.LoadBalancer.Ingress {
			out = append(out, in.IP)
		}
		return strings.Join(out, " ")
	}
	has := func(name, want string) {
		e.Helper()
		harness.Succeeds(e, "the address of "+name, func() error {
			if got := addresses(name); got != want {
				return fmt.Errorf("%q, want %q", got, want)
			}
			return nil
		})
	}
	node := a.Status.HostIP
	has("one", node)
	e.reaches("the pod from the node", func() (string, error) { return e.get("http://" + node + "/") }, "a")
	e.reaches("the pod from itself", func() (string, error) { return e.exec("a", "get", "http://"+node+"/") }, "a")

	// The first Service has the port; the others get an event.
	e.expose("two", "web", balanced)
	e.event("two", "SyncLoadBalancerFailed", "port 80/TCP of the nodes is that of the Service "+e.ns+"/one")
	if got := addresses("two"); got != "" {
		e.Errorf("two has %s", got)
	}
	if err := e.client.CoreV1().Services(e.ns).Delete(e.Context(), "one", metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}
	has("two", node)
	if err := e.client.CoreV1().Services(e.ns).Delete(e.Context(), "two", metav1.DeleteOptions{}); err != nil {
		e.Fatal(err)
	}

	// A program of the machine keeps its port, too, until it ends.
	l, err := net.Listen("tcp", net.JoinHostPort(node, "8082"))
	if err != nil {
		e.Fatal(err)
	}
	e.expose("busy", "web", balanced, func(s *v1.ServiceSpec) { s.Ports[0].Port, s.Ports[0].TargetPort = 8082, intstr.FromInt32(80) })
	has("busy", node)
	e.event("busy", "PortInUse", "port 8082/TCP of "+node)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		e.Fatal(err)
	}
	own, err := l.Accept()
	if err != nil {
		e.Fatal(err)
	}
	own.Close()
	c.Close()
	if err := l.Close(); err != nil {
		e.Fatal(err)
	}
	e.reaches("the pod when the port is free", func() (string, error) { return e.get("http://" + net.JoinHostPort(node, "8082") + "/") }, "a")
}

// event waits for an event of a Service whose note contains the text.
func (e *env) event(service, reason, text string) {
	e.Helper()
	harness.Succeeds(e, "the event "+reason+" of "+service, func() error {
		list, err := e.client.CoreV1().Events(e.ns).List(e.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + service})
		if err != nil {
			return err
		}
		var notes []string
		for i := range list.Items {
			if list.Items[i].Reason == reason {
				notes = append(notes, list.Items[i].Message)
			}
		}
		if !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, text) }) {
			return fmt.Errorf("%q, want one with %q", notes, text)
		}
		return nil
	})
}
