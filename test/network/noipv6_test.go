package network_test

import (
	"net/netip"
	"os"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/test/harness/realnode"
)

// TestNoIPv6 has a machine with IPv6 switched off be a node of a cluster of both
// families: its pods have addresses of IPv4, and all of that works.
func TestNoIPv6(t *testing.T) {
	for _, file := range []string{"all", "default"} {
		file = "/proc/sys/net/ipv6/conf/" + file + "/disable_ipv6"
		was, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("1"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(file, was, 0o644); err != nil {
				t.Error(err)
			}
		})
	}
	n := realnode.Start(t, agent.Options{}, dualStack)
	e := &env{t, kubernetes.NewForConfigOrDie(n.Config), n.Config, metav1.NamespaceDefault}
	e.nodeEvent("IPv6NotAvailable", "net.ipv6.conf.all.disable_ipv6")
	if ips := e.start("web", "a")[0].Status.PodIPs; len(ips) != 1 {
		t.Errorf("the pod has the addresses %v", ips)
	}
	e.expose("web", "web")
	e.reaches("the pod by its Service's name", func() (string, error) { return e.exec("a", "get", "http://web/") }, "a")
}

// dualStack gives a cluster ranges of both families.
func dualStack(o *cluster.Options) {
	o.NodeIPAM.ClusterCIDRs = []string{"10.213.0.0/16", "fd00:213::/56"}
	o.ServiceCIDR, o.SecondServiceCIDR = netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/108")
}
