package agent

import (
	"net/netip"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// complain reports an error without the text want; an empty want means no error.
func complain(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestProcessOptionsValidate(t *testing.T) {
	const token, server = "abcdef.0123456789abcdef", "https://192.0.2.1:6443"
	for _, c := range []struct {
		name, want string
		o          ProcessOptions
	}{
		{"kubeconfig", "", ProcessOptions{Kubeconfig: "f"}},
		{"token", "", ProcessOptions{Servers: []string{server}, Token: token, CAHashes: []string{"sha256:" + strings.Repeat("0a", 32)}}},
		{"kubeconfig and token", "give one or the others", ProcessOptions{Kubeconfig: "f", Token: token}},
		{"certificate without a key", "must be specified together", ProcessOptions{TLSCertFile: "f"}},
		{"certificate of a file and of the cluster", "--rotate-server-certificates", ProcessOptions{TLSCertFile: "f", TLSPrivateKeyFile: "k", RotateServerCertificates: true}},
		{"hash", "--ca-hash", ProcessOptions{Servers: []string{server}, CAHashes: []string{"md5:0a"}}},
		{"form of the token", "--token", ProcessOptions{Servers: []string{server}, Token: "abcdef"}},
		{"token without a server", "give the URL of the API server", ProcessOptions{Token: token}},
		{"one of several servers in plain text", "give the URL of the API server", ProcessOptions{Servers: []string{server, "http://192.0.2.1"}}},
		{"several servers", "", ProcessOptions{Servers: []string{server, "https://api.test"}}},
		{"token in plain text", "give the URL of the API server", ProcessOptions{Servers: []string{"http://192.0.2.1"}, Token: token}},
		{"proxy", "--proxy", ProcessOptions{Options: Options{Network: Network{Proxy: "kube"}}}},
		{"ranges of node ports", "--nodeport-addresses", ProcessOptions{Options: Options{Network: Network{NodePortAddresses: []string{"192.0.2.1"}}}}},
	} {
		t.Run(c.name, func(t *testing.T) { complain(t, c.o.Validate(), c.want) })
	}
}

func TestNameServer(t *testing.T) {
	service := func(address string, labels map[string]string) *v1.Service {
		return &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kube-dns", Namespace: metav1.NamespaceSystem, Labels: labels}, Spec: v1.ServiceSpec{ClusterIP: address}}
	}
	own := dnsService(netip.MustParseAddr("10.96.0.10"))
	given := ProcessOptions{ClusterDNS: netip.MustParseAddr("192.0.2.53")}
	others := ProcessOptions{Options: Options{Network: Network{DNS: None}}}
	for _, c := range []struct {
		name    string
		o       ProcessOptions
		service *v1.Service
		address string
		want    string
	}{
		{"given", given, nil, "192.0.2.53", ""},
		{"none, for the built-in", ProcessOptions{}, nil, "", "run keelson agent prepare"},
		{"none, for another", others, nil, "", ""},
		{"the cluster's own", ProcessOptions{}, own, "10.96.0.10", ""},
		{"another's, for the built-in", ProcessOptions{}, service("10.96.0.10", nil), "", "give --dns none"},
		{"another's", others, service("10.96.0.10", nil), "10.96.0.10", ""},
		{"without an address", others, service(v1.ClusterIPNone, nil), "", "give --cluster-dns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var objects []runtime.Object
			if c.service != nil {
				objects = append(objects, c.service)
			}
			got, err := c.o.nameServer(t.Context(), fake.NewClientset(objects...))
			complain(t, err, c.want)
			if want, _ := netip.ParseAddr(c.address); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// TestMayServe checks that a node asks for the rights that its parts of the network
// need, and for no others.
func TestMayServe(t *testing.T) {
	nothing := Options{Storage: None, Network: Network{Proxy: None, DNS: None, Policies: None}}
	with := func(change func(*Options)) ProcessOptions {
		o := nothing
		change(&o)
		return ProcessOptions{Options: o}
	}
	for _, c := range []struct {
		name       string
		o          ProcessOptions
		podNetwork bool
		asked      string
	}{
		{"nothing", ProcessOptions{Options: nothing}, false, ""},
		{"pod network", ProcessOptions{Options: nothing}, true, "nodes"},
		{"proxy", with(func(o *Options) { o.Network.Proxy = Builtin }), false, "endpointslices"},
		{"dns", with(func(o *Options) { o.Network.DNS = Builtin }), false, "endpointslices namespaces"},
		{"policies", with(func(o *Options) { o.Network.Policies = Builtin }), false, "networkpolicies pods namespaces"},
		{"storage", with(func(o *Options) { o.Storage = Builtin }), false, "persistentvolumeclaims"},
		{"all", ProcessOptions{}, true, "endpointslices networkpolicies pods namespaces nodes persistentvolumeclaims"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked []string
			refused := ""
			client := fake.NewClientset()
			client.PrependReactor("create", "selfsubjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
				r := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
				resource := r.Spec.ResourceAttributes.Resource
				asked = append(asked, resource)
				r.Status.Allowed = resource != refused
				return true, r, nil
			})
			complain(t, c.o.mayServe(t.Context(), client, client, false, c.podNetwork), "")
			if got := strings.Join(asked, " "); got != c.asked {
				t.Errorf("asked for %q, want %q", got, c.asked)
			}
			for _, refused = range strings.Fields(c.asked) {
				complain(t, c.o.mayServe(t.Context(), client, client, false, c.podNetwork), "nodes may not watch "+refused)
			}
		})
	}
}
