package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/node/server"
	"keelson.dev/keelson/test/harness"
)

// TestNodeServerAccess checks that the server of a node asks the API server whether
// a user may access the node; the API server's own identity may do everything there,
// and little elsewhere.
func TestNodeServerAccess(t *testing.T) {
	c := boot(t, Options{})
	ctx, admin := t.Context(), c.Client(inprocess.Admin)
	node := c.Client(&user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup, user.AllAuthenticated}})
	access, err := server.NewAccess("n1", node, c.Certs.CAPEM)
	if err != nil {
		t.Fatal(err)
	}
	h := access.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			http.NotFound(w, r)
		}
	}))
	for _, o := range []any{
		&v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "scraper"}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "scraper"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes/metrics", "nodes/healthz"}, Verbs: []string{"get"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "scraper"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "scraper"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "scraper"}}},
	} {
		switch o := o.(type) {
		case *v1.ServiceAccount:
			_, err = admin.CoreV1().ServiceAccounts("default").Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.ClusterRole:
			_, err = admin.RbacV1().ClusterRoles().Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.ClusterRoleBinding:
			_, err = admin.RbacV1().ClusterRoleBindings().Create(ctx, o, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "system:serviceaccount:default:scraper",
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: "nodes", Subresource: "metrics", Name: "n1"}}}
	harness.Eventually(t, "the scraper's role to count", func() bool {
		r, err := admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		return err == nil && r.Status.Allowed
	})
	tr, err := admin.CoreV1().ServiceAccounts("default").CreateToken(ctx, "scraper", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(name string, groups ...string) *x509.Certificate {
		pair, err := c.Certs.ClientCert(name, groups)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(pair.Cert)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	proxyPair, err := c.Certs.FrontProxy.ClientCert("admin", []string{user.SystemPrivilegedGroup})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(proxyPair.Cert)
	stranger, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		name         string
		cert         *x509.Certificate
		token        string
		method, path string
		want         int // 404 is let in: the handler knows /healthz only
	}{
		{"the API server", leaf(authz.KubeletClient), "", "POST", "/run/x", 404},
		{"the API server", leaf(authz.KubeletClient), "", "GET", "/metrics/x", 404},
		{"the API server", leaf(authz.KubeletClient), "", "GET", "/healthz", 200},
		{"an administrator", leaf("jane", user.SystemPrivilegedGroup), "", "POST", "/run/x", 404},
		{"another node", leaf("system:node:n2", user.NodesGroup), "", "GET", "/healthz", 403},
		{"the node itself", leaf("system:node:n1", user.NodesGroup), "", "POST", "/run/x", 403},
		{"a user", leaf("joe"), "", "GET", "/healthz", 403},
		{"an authority for others", stranger, "", "GET", "/healthz", 401},
		{"nobody", nil, "", "GET", "/healthz", 401},
		{"a scraper", nil, tr.Status.Token, "GET", "/metrics/x", 404},
		{"a scraper", nil, tr.Status.Token, "GET", "/healthz", 200},
		{"a scraper", nil, tr.Status.Token, "GET", "/pods", 403},
		{"a scraper", nil, tr.Status.Token, "POST", "/metrics/x", 403},
		{"a bad token", nil, tr.Status.Token + "x", "GET", "/metrics/x", 401},
	} {
		r := httptest.NewRequest(k.method, k.path, nil)
		r.TLS = &tls.ConnectionState{}
		if k.cert != nil {
			r.TLS.PeerCertificates = []*x509.Certificate{k.cert}
		}
		if k.token != "" {
			r.Header.Set("Authorization", "Bearer "+k.token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != k.want {
			t.Errorf("%s: %s %s: %d %s, want %d", k.name, k.method, k.path, w.Code, strings.TrimSpace(w.Body.String()), k.want)
		}
	}
	// The API server's identity at nodes has no other rights.
	as := c.Client(&user.DefaultInfo{Name: authz.KubeletClient, Groups: []string{user.AllAuthenticated}})
	if _, err := as.CoreV1().Secrets("").List(ctx, metav1.ListOptions{}); err == nil {
		t.Error("the API server's identity at nodes reads secrets")
	}
}

// TestNodeTransport checks which certificates are verified, and at which address a
// node's server is reached.
func TestNodeTransport(t *testing.T) {
	c := boot(t, Options{Listen: "127.0.0.1:0", NoDrain: true})
	node := func(version, at string) *v1.Node {
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		n := &v1.Node{Status: v1.NodeStatus{NodeInfo: v1.NodeSystemInfo{KubeletVersion: version}, Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: u.Hostname()}}}}
		if p, err := netip.ParseAddrPort(u.Host); err == nil {
			n.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(p.Port())
		}
		return n
	}
	get := func(n *v1.Node, unchecked bool) error {
		base, rt, err := c.nodes.Node(t.Context(), n, unchecked)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(t.Context(), "GET", base.String()+"/", nil)
		if err != nil {
			return err
		}
		resp, err := rt.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	serve := func(pair *tls.Certificate) string {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		if pair != nil {
			s.TLS = &tls.Config{Certificates: []tls.Certificate{*pair}}
		}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	pair, err := c.Certs.ServingCert("system:node:n", []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	own, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := serve(&own), serve(nil)
	for _, k := range []struct {
		name       string
		n          *v1.Node
		unverified bool
		want       string
	}{
		{"Keelson's agent", node("v1.37.2+keelson", ours), false, ""},
		{"somebody in its place", node("v1.37.2+keelson", theirs), false, "certificate signed by unknown authority"},
		{"somebody in its place, unchecked", node("v1.37.2+keelson", theirs), true, ""},
		{"a kubelet that signs its own", node("v1.37.0", theirs), false, ""},
		{"the API server", node("v1.37.0", c.URL()), false, "is the API server's own"},
		{"the API server, unchecked", node("v1.37.0", c.URL()), true, "is the API server's own"},
	} {
		if err := get(k.n, k.unverified); k.want == "" && err != nil || k.want != "" && (err == nil || !strings.Contains(err.Error(), k.want)) {
			t.Errorf("%s: %v, want %q", k.name, err, k.want)
		}
	}
	if base, _, err := c.nodes.Node(t.Context(), node("", "https://10.0.0.1"), false); err != nil || base.String() != "https://10.0.0.1:10250" {
		t.Errorf("without a port: %v, %v", base, err)
	}
	for address, want := range map[string]bool{"127.0.0.1:": true, "127.0.0.2:": true, c.Advertise.String() + ":": true, "192.0.2.77:": false} {
		_, port, _ := strings.Cut(c.Address, ":")
		if got := c.own(netip.MustParseAddrPort(address + port)); got != want {
			t.Errorf("own(%s%s) = %v", address, port, got)
		}
	}
	if !c.own(netip.MustParseAddrPort("10.96.0.1:443")) || c.own(netip.MustParseAddrPort("10.96.0.1:80")) || c.own(netip.MustParseAddrPort("127.0.0.1:10250")) {
		t.Error("own: the service kubernetes, and nothing else, is this server's")
	}
}
