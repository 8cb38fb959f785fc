package network_test

import (
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realnode"
)

// TestNone checks that with every part of the network left to others nothing of it
// is set up, and that pods of the machine still reach one another.
func TestNone(t *testing.T) {
	n := realnode.Start(t, agent.Options{Network: agent.Network{Proxy: agent.None, DNS: agent.None, Policies: agent.None}})
	client := kubernetes.NewForConfigOrDie(n.Config)
	e := &env{t, client, n.Config, metav1.NamespaceDefault}
	deny := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "deny"}, Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}}}
	if _, err := client.NetworkingV1().NetworkPolicies(e.ns).Create(t.Context(), deny, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods := e.start("web", "a", "b")
	s := e.expose("web", "web")
	e.reaches("a pod that a policy of others would isolate", func() (string, error) { return e.exec("a", "get", "http://"+pods[1].Status.PodIP+"/") }, "b")
	if out, err := e.exec("a", "send", s.Spec.ClusterIP+":80"); err == nil {
		t.Errorf("the Service's address is served: %q", out)
	}
	if _, err := client.CoreV1().Services(metav1.NamespaceSystem).Get(t.Context(), "kube-dns", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the place of another name server's Service is taken: %v", err)
	}
	if _, err := net.InterfaceByName("keelson-dns"); err == nil {
		t.Error("there is a link for the name server")
	}
	tables, err := exec.CommandContext(t.Context(), "nft", "list", "tables").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"keelson-proxy", "keelson-policy"} {
		if strings.Contains(string(tables), name) {
			t.Errorf("there is the table %s", name)
		}
	}
}

// TestNodePortAddresses checks that node ports are served on another address than
// the node's own.
func TestNodePortAddresses(t *testing.T) {
	const other = "172.29.213.3"
	uplink, err := netlink.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(other + "/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(uplink, a); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.AddrDel(uplink, a); err != nil {
			t.Error(err)
		}
	})
	n := realnode.Start(t, agent.Options{Network: agent.Network{NodePortAddresses: []string{other + "/32"}}})
	e := &env{t, kubernetes.NewForConfigOrDie(n.Config), n.Config, metav1.NamespaceDefault}
	own := e.start("web", "a")[0].Status.HostIP
	s := e.expose("web", "web", func(s *v1.ServiceSpec) { s.Type = v1.ServiceTypeNodePort })
	port := strconv.Itoa(int(s.Spec.Ports[0].NodePort))
	e.reaches("the address that is given", func() (string, error) { return e.get("http://" + net.JoinHostPort(other, port) + "/") }, "a")
	harness.Succeeds(t, "a refusal at the node's own address", func() error {
		out, err := e.get("http://" + net.JoinHostPort(own, port) + "/")
		if err == nil || !strings.Contains(err.Error(), "refused") {
			return fmt.Errorf("%q, %w", out, err)
		}
		return nil
	})
}
