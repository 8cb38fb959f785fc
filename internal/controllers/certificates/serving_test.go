package certificates

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestServingApprover checks that a node gets certificates for its own name and
// addresses only, even where its status has addresses of others.
func TestServingApprover(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const name = "system:node:a"
	for _, c := range []struct {
		name  string
		by    string // the requester, name if empty
		group string // system:nodes if empty
		cn    string // name if empty
		dns   []string
		ips   []string
		// has are the addresses that the Node says it has.
		has  []string
		want string // part of the event; empty is an approval
	}{
		{name: "its own", dns: []string{"a"}, ips: []string{"192.0.2.1"}, has: []string{"192.0.2.1"}},
		{name: "its host name", dns: []string{"a.example.com"}, ips: []string{"2001:db8::1"}, has: []string{"2001:db8:0::1", "A.example.com"}},
		{name: "another's request", by: "system:node:b", dns: []string{"a"}, want: `made by "system:node:b"`},
		{name: "a user's request", by: "eve", dns: []string{"a"}, want: `made by "eve"`},
		{name: "no node's group", group: "eve", dns: []string{"a"}, want: "made by"},
		{name: "another's name", cn: "system:node:b", dns: []string{"b"}, want: `it is for "system:node:b"`},
		{name: "an address that it has not", dns: []string{"a"}, ips: []string{"192.0.2.9"}, has: []string{"192.0.2.1"}, want: "the Node has no address 192.0.2.9"},
		{name: "a name that it has not", dns: []string{"a", "registry.example.com"}, want: "the Node has no name registry.example.com"},
		{name: "the address of another node", ips: []string{"192.0.2.2"}, has: []string{"192.0.2.2"}, want: "192.0.2.2 is an address of node b"},
		{name: "the address of another node in another form", ips: []string{"192.0.2.2"}, has: []string{"::ffff:192.0.2.2"}, want: "192.0.2.2 is an address of node b"},
		{name: "the name of another node", dns: []string{"b"}, has: []string{"b"}, want: "b is a name of node b"},
		{name: "the API server's address", ips: []string{"192.0.2.100"}, has: []string{"192.0.2.100"}, want: "192.0.2.100 is an address of the API server"},
		{name: "the API server's name", dns: []string{"api.example.com"}, has: []string{"API.example.com"}, want: "api.example.com is a name of the API server"},
		{name: "a Service's name", dns: []string{"kubernetes.default.svc"}, has: []string{"kubernetes.default.svc"}, want: "is a name of the cluster's Services"},
		{name: "another Service's name", dns: []string{"x.y.svc"}, has: []string{"x.y.svc"}, want: "is a name of the cluster's Services"},
		{name: "every machine's name", dns: []string{"localhost"}, has: []string{"localhost"}, want: "or of every machine"},
		{name: "a Service's address", ips: []string{"10.96.0.1"}, has: []string{"10.96.0.1"}, want: "10.96.0.1 is no machine's own address"},
		{name: "loopback", ips: []string{"127.0.0.1"}, has: []string{"127.0.0.1"}, want: "127.0.0.1 is no machine's own address"},
		{name: "an address as a name", dns: []string{"192.0.2.1"}, has: []string{"192.0.2.1"}, want: "is given as a name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				cl := controllertest.NewWith(t, func(c *controllers.Context) { c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")} }, NewServingApprover)
				node := func(name string, has ...string) {
					n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
					for _, a := range has {
						n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
					}
					controllertest.Must[*corev1.Node](t)(cl.Client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}))
				}
				node("b", "192.0.2.2")
				controllertest.Must[*discovery.EndpointSlice](t)(cl.Client.DiscoveryV1().EndpointSlices("default").Create(ctx, &discovery.EndpointSlice{
					ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Labels: map[string]string{discovery.LabelServiceName: "kubernetes"}}, Endpoints: []discovery.Endpoint{{Addresses: []string{"192.0.2.100"}}}}, metav1.CreateOptions{}))
				controllertest.Must[*corev1.ConfigMap](t)(cl.Client.CoreV1().ConfigMaps("kube-public").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cluster-info"},
					Data: map[string]string{"kubeconfig": "apiVersion: v1\nkind: Config\nclusters: [{name: '', cluster: {server: 'https://api.example.com:6443'}}]\n"}}, metav1.CreateOptions{}))
				or := func(s, other string) string {
					if s == "" {
						return other
					}
					return s
				}
				r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: or(c.cn, name), Organization: []string{nodesGroup}}, DNSNames: c.dns}
				for _, ip := range c.ips {
					r.IPAddresses = append(r.IPAddresses, net.ParseIP(ip))
				}
				der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
				if err != nil {
					t.Fatal(err)
				}
				requests := cl.Client.CertificatesV1().CertificateSigningRequests()
				controllertest.Must[*v1.CertificateSigningRequest](t)(requests.Create(ctx, &v1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: v1.CertificateSigningRequestSpec{
					Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: v1.KubeletServingSignerName, Username: or(c.by, name), Groups: []string{or(c.group, nodesGroup)},
					Usages: []v1.KeyUsage{v1.UsageDigitalSignature, v1.UsageServerAuth}}}, metav1.CreateOptions{}))
				cl.Advance(0)
				approved := func() bool {
					return has(controllertest.Must[*v1.CertificateSigningRequest](t)(requests.Get(ctx, "r", metav1.GetOptions{})), v1.CertificateApproved)
				}
				if approved() {
					t.Fatal("it was approved before there was the Node")
				}
				cl.Events()
				node("a", c.has...) // the request is looked at again
				cl.Advance(0)
				events := strings.Join(cl.Events(), "\n")
				switch {
				case c.want == "" && !approved():
					t.Errorf("it was not approved: %s", events)
				case c.want != "" && approved():
					t.Error("it was approved")
				case c.want != "" && c.by == "" && !strings.Contains(events, c.want):
					t.Errorf("%q, want %q", events, c.want)
				}
			})
		})
	}
}
