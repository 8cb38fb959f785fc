package network_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/test/harness"
)

// uplink replaces the address of this machine on its network, as a DHCP server may, and
// returns the former.
func uplink(t testing.TB, address string) (former string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	routes, err := netlink.RouteGet(net.IPv4(192, 0, 2, 1))
	check(err)
	l, err := netlink.LinkByIndex(routes[0].LinkIndex)
	check(err)
	old, err := netlink.AddrList(l, netlink.FAMILY_V4)
	check(err)
	next, err := netlink.ParseAddr(address)
	check(err)
	check(netlink.AddrDel(l, &old[0]))
	check(netlink.AddrAdd(l, next))
	check(netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: routes[0].Gw}))
	return old[0].IPNet.String()
}

// port returns the API server's port.
func (e *env) port() string {
	e.Helper()
	u, err := url.Parse(e.cfg.Host)
	if err != nil {
		e.Fatal(err)
	}
	return u.Port()
}

// readdressed changes the address of the server's machine, and checks that the Node, the
// endpoint of the API server, OpenID discovery and the pods follow.
func (e *env) readdressed() {
	pod := e.start("web", "web")[0]
	const address = "172.29.213.77"
	former := uplink(e, address+"/24")
	e.Cleanup(func() { uplink(e, former) })
	harness.Succeeds(e, "the Node's address", func() error {
		nodes, err := e.client.CoreV1().Nodes().List(e.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		if a := nodes.Items[0].Status.Addresses[0]; a.Type != v1.NodeInternalIP || a.Address != address {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	harness.Succeeds(e, "the API server's endpoint", func() error {
		s, err := e.client.DiscoveryV1().EndpointSlices("default").Get(e.Context(), "kubernetes", metav1.GetOptions{})
		if err == nil && strings.Join(s.Endpoints[0].Addresses, ",") != address {
			err = fmt.Errorf("%v", s.Endpoints)
		}
		return err
	})
	harness.Succeeds(e, "the place of the keys of tokens", func() error {
		b, err := e.client.Discovery().RESTClient().Get().AbsPath("/.well-known/openid-configuration").DoRaw(e.Context())
		if want := `"jwks_uri":"https://` + net.JoinHostPort(address, e.port()) + `/openid/v1/jwks"`; err == nil && !strings.Contains(string(b), want) {
			err = fmt.Errorf("%s, want %s", b, want)
		}
		return err
	})
	harness.Succeeds(e, "the pod's host address", func() error {
		p, err := e.client.CoreV1().Pods(e.ns).Get(e.Context(), pod.Name, metav1.GetOptions{})
		if err == nil && p.Status.HostIP != address {
			err = errors.New(p.Status.HostIP)
		}
		return err
	})
	api, err := e.client.CoreV1().Services("default").Get(e.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		e.Fatal(err)
	}
	harness.Succeeds(e, "the API server by its Service", func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(api.Spec.ClusterIP, "443"), time.Second)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	harness.Succeeds(e, "a command in the pod", func() error {
		_, err := e.exec(pod.Name, "echo", "hello")
		return err
	})
}
