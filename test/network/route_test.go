package network_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realnode"
)

// way is a network of the machine, with a default route over it.
type way struct {
	link            netlink.Link
	address, router string
}

func (w *way) ip() string {
	ip, _, _ := strings.Cut(w.address, "/")
	return ip
}

// newWay makes a network that is not connected yet.
func newWay(t *testing.T, name, address, router string) *way {
	t.Helper()
	return &way{bridged(t, name), address, router}
}

// connect gives the machine the network's address and its default route.
func (w *way) connect(t *testing.T) {
	t.Helper()
	a, err := netlink.ParseAddr(w.address)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []func() error{
		func() error { return netlink.AddrAdd(w.link, a) },
		func() error { return netlink.LinkSetUp(w.link) },
		func() error {
			return netlink.RouteReplace(&netlink.Route{LinkIndex: w.link.Attrs().Index, Gw: net.ParseIP(w.router)})
		},
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
}

// cut takes a network's address away, and the route over it.
func cut(t *testing.T, l netlink.Link) {
	t.Helper()
	all, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if err := netlink.AddrDel(l, &a); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDefaultRoute starts a node before the machine has a default route, or any address,
// and then moves the machine to another network: what runs goes on.
func TestDefaultRoute(t *testing.T) {
	uplink, err := netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	usual := &way{uplink, "172.29.213.2/24", "172.29.213.1"}
	cut(t, uplink)
	t.Cleanup(func() { usual.connect(t) })
	late, next := newWay(t, "late", "172.30.1.2/24", "172.30.1.1"), newWay(t, "next", "172.30.2.2/24", "172.30.2.1")

	n := realnode.Start(t, agent.Options{})
	e := &env{t, kubernetes.NewForConfigOrDie(n.Config), n.Config, metav1.NamespaceDefault}
	e.nodeEvent("AddressNotAvailable", "no default route")
	e.start("web", "a")
	web := e.expose("web", "web", func(s *v1.ServiceSpec) { s.Type = v1.ServiceTypeNodePort })
	for _, w := range []*way{late, next} {
		w.connect(t)
		t.Cleanup(func() { // before what is left is counted
			cut(t, w.link)
			if err := netlink.LinkSetDown(w.link); err != nil {
				t.Error(err)
			}
		})
		e.at(w.ip())
		e.reaches("the pod by the node port at "+w.ip(), func() (string, error) {
			return e.get("http://" + net.JoinHostPort(w.ip(), fmt.Sprint(web.Spec.Ports[0].NodePort)) + "/")
		}, "a")
		e.reaches("the pod from itself", func() (string, error) { return e.exec("a", "get", "http://web/") }, "a")
		// It answers plain HTTP by saying that it wants TLS.
		harness.Succeeds(t, "the API server from a pod", func() error {
			out, err := e.exec("a", "get", "http://kubernetes:443/")
			if err == nil && !strings.Contains(out, "HTTPS") {
				err = fmt.Errorf("%q", out)
			}
			return err
		})
		if w == late {
			cut(t, late.link)
		}
	}
}

// at waits until the node and the API server have the address.
func (e *env) at(ip string) {
	e.Helper()
	harness.Succeeds(e, "the address "+ip, func() error {
		n, err := e.client.CoreV1().Nodes().Get(e.Context(), "node", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !slices.Contains(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip}) {
			return fmt.Errorf("the node has %v", n.Status.Addresses)
		}
		s, err := e.client.DiscoveryV1().EndpointSlices("default").Get(e.Context(), "kubernetes", metav1.GetOptions{})
		if err == nil && (len(s.Endpoints) != 1 || s.Endpoints[0].Addresses[0] != ip) {
			err = fmt.Errorf("the API server has %v", s.Endpoints)
		}
		return err
	})
}

// nodeEvent waits for an event of the node whose note has the text.
func (e *env) nodeEvent(reason, text string) {
	e.Helper()
	harness.Succeeds(e, "the event "+reason+" of the node", func() error {
		list, err := e.client.CoreV1().Events("").List(e.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=Node,reason=" + reason})
		if err != nil {
			return err
		}
		for i := range list.Items {
			if strings.Contains(list.Items[i].Message, text) {
				return nil
			}
		}
		return fmt.Errorf("%d events, none with %q", len(list.Items), text)
	})
}
