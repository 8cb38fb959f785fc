package apiserver

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilptr "k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
)

// backend is a transport that records its requests and answers with resp.
type backend struct {
	got  *http.Request
	resp func() *http.Response
}

func (b *backend) RoundTrip(r *http.Request) (*http.Response, error) {
	b.got = r
	if b.resp != nil {
		resp := b.resp()
		resp.Request = r
		if resp.Body == nil {
			resp.Body = io.NopCloser(strings.NewReader("moved"))
		}
		return resp, nil
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("inside")), Request: r}, nil
}

// agent is a NodeTransport whose nodes all have the port 10250.
type agent struct{ *backend }

func (a agent) Node(_ context.Context, n *v1.Node, _ bool) (*url.URL, http.RoundTripper, error) {
	return &url.URL{Scheme: "https", Host: n.Status.Addresses[0].Address + ":10250"}, a, nil
}

// proxies returns a server with a pod "p" at each of several addresses, services in
// front of them, and nodes. It has neither authentication nor admission.
func proxies(t *testing.T) (s *Server, plain, node *backend) {
	t.Helper()
	st, err := embedded.Open(embedded.Options{Codec: store.NewCodec(catalogue.Scheme)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	plain, node = &backend{}, &backend{}
	s = New(Config{Store: st, Catalogue: catalogue.New(catalogue.Builtin()), Scheme: catalogue.Scheme, Nodes: agent{node},
		Own: func(a netip.AddrPort) bool { return a == netip.MustParseAddrPort("10.0.0.1:6443") }})
	t.Cleanup(s.Shutdown)
	s.backends = plain
	put := func(group, resource, name string, o runtime.Object) {
		row := s.Catalogue.Lookup(group, "v1", resource)
		ns := ""
		if row.Namespaced {
			ns = "a"
		}
		if _, err := st.Create(t.Context(), row.Key(ns, name), o, 0); err != nil {
			t.Fatal(err)
		}
	}
	for name, address := range map[string]string{"n": "10.0.0.1", "lo": "127.0.0.1", "sim-0": "100.64.0.0"} {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: address}}}}
		if name == "sim-0" {
			n.Status.NodeInfo.ContainerRuntimeVersion = "sim://1"
		}
		put("", "nodes", name, n)
	}
	endpoint := func(ip, pod string) discoveryv1.Endpoint {
		e := discoveryv1.Endpoint{Addresses: []string{ip}}
		if pod != "" {
			e.TargetRef = &v1.ObjectReference{Kind: "Pod", Namespace: "a", Name: pod}
		}
		return e
	}
	service := func(name string, kind discoveryv1.AddressType, endpoints ...discoveryv1.Endpoint) {
		put("", "services", name, &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: v1.ServiceSpec{Ports: []v1.ServicePort{{Name: "web", Port: 80}, {Name: "x", Port: 81}}}})
		put("discovery.k8s.io", "endpointslices", name, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
			AddressType: kind, Endpoints: endpoints, Ports: []discoveryv1.EndpointPort{{Name: utilptr.To("web"), Port: utilptr.To[int32](8080)}}})
	}
	for name, ip := range map[string]string{"p": "10.1.2.3", "six": "fd00::1", "loop": "127.0.0.1", "mapped": "::ffff:127.0.0.1", "link": "169.254.169.254", "any": "0.0.0.0",
		"many": "224.0.0.1", "none": "", "own": "10.0.0.1", "sim": "10.128.0.1"} {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: v1.PodSpec{NodeName: "n", Containers: []v1.Container{
			{Name: "a"}, {Name: "b", Ports: []v1.ContainerPort{{Name: "web", ContainerPort: 8080}, {Name: "more", ContainerPort: 8081}}}}}}
		if ip != "" {
			p.Status = v1.PodStatus{PodIP: ip, PodIPs: []v1.PodIP{{IP: ip}}}
		}
		if name == "sim" {
			p.Spec.NodeName = "sim-0"
		}
		put("", "pods", name, p)
		if ip != "" {
			service("to-"+name, discoveryv1.AddressTypeIPv4, endpoint(ip, name))
		}
	}
	service("bare", discoveryv1.AddressTypeIPv4, endpoint("10.1.2.3", ""))
	service("gone", discoveryv1.AddressTypeIPv4, endpoint("10.1.2.3", "no-such-pod"))
	service("other", discoveryv1.AddressTypeIPv4, endpoint("10.9.9.9", "p"))
	service("name", discoveryv1.AddressTypeFQDN, endpoint("10.1.2.3", "p"))
	service("some", discoveryv1.AddressTypeIPv4, endpoint("10.128.0.1", "sim"), endpoint("10.1.2.3", "p"), endpoint("169.254.169.254", "link"))
	return s, plain, node
}

// TestProxy checks that a backend gets the path below the proxy's, and that requests
// are passed on to the addresses that pods and nodes may have only.
func TestProxy(t *testing.T) {
	s, plain, node := proxies(t)
	const pods, services, nodes = "/api/v1/namespaces/a/pods/", "/api/v1/namespaces/a/services/", "/api/v1/nodes/"
	for _, c := range []struct {
		path string
		code int
		want string // the URL of the request to the backend, or a part of the answer
		by   *backend
	}{
		{pods + "p/proxy/abc/d?x=1", 200, "http://10.1.2.3:8080/abc/d?x=1", plain},
		{pods + "p/proxy/abc/", 200, "http://10.1.2.3:8080/abc/", plain},
		{pods + "p/proxy/", 200, "http://10.1.2.3:8080/", plain},
		{pods + "p/proxy", 301, "", nil},
		{pods + "p:9000/proxy/", 200, "http://10.1.2.3:9000/", plain},
		{pods + "https:p:9000/proxy/", 200, "https://10.1.2.3:9000/", plain},
		{pods + "p:more/proxy/", 200, "http://10.1.2.3:8081/", plain},
		{pods + "p:nothing/proxy/", 400, `no port \"nothing\" found for pod \"p\"`, nil},
		{pods + "p:0/proxy/", 400, `no port \"0\" found`, nil},
		{pods + "p:65536/proxy/", 400, `no port \"65536\" found`, nil},
		{pods + "p:-1/proxy/", 400, `no port \"-1\" found`, nil},
		{pods + "ftp:p:1/proxy/", 400, `invalid pod request \"ftp:p:1\"`, nil},
		{pods + "six/proxy/a", 200, "http://[fd00::1]:8080/a", plain},
		{pods + "loop/proxy/", 400, "address not allowed", nil},
		{pods + "mapped/proxy/", 400, "address not allowed", nil},
		{pods + "link/proxy/", 400, "address not allowed", nil},
		{pods + "any/proxy/", 400, "address not allowed", nil},
		{pods + "many/proxy/", 400, "address not allowed", nil},
		{pods + "none/proxy/", 400, "address not allowed", nil},
		{pods + "own:6443/proxy/api", 400, "address not allowed: 10.0.0.1:6443 is the API server's own", nil},
		{pods + "own:6444/proxy/api", 200, "http://10.0.0.1:6444/api", plain},
		{pods + "sim/proxy/", 400, `pod \"sim\" is simulated`, nil},

		{services + "to-p:80/proxy/a/b", 200, "http://10.1.2.3:8080/a/b", plain},
		{services + "https:to-p:web/proxy/a", 200, "https://10.1.2.3:8080/a", plain},
		{services + "to-p:82/proxy/a", 503, `no service port \"82\" found for service \"to-p\"`, nil},
		{services + "some:web/proxy/", 200, "http://10.1.2.3:8080/", plain},
		{services + "to-loop:80/proxy/", 503, "no endpoints available", nil},
		{services + "to-mapped:80/proxy/", 503, "no endpoints available", nil},
		{services + "to-link:80/proxy/", 503, "no endpoints available", nil},
		{services + "to-sim:80/proxy/", 503, "its pods are simulated", nil},
		{services + "bare:80/proxy/", 503, "no endpoints available", nil},
		{services + "gone:80/proxy/", 503, "no endpoints available", nil},
		{services + "other:80/proxy/", 503, "no endpoints available", nil},
		{services + "name:80/proxy/", 503, "no endpoints available", nil},

		{nodes + "n/proxy/pods", 200, "https://10.0.0.1:10250/pods", node},
		{nodes + "n:10250/proxy/pods", 200, "https://10.0.0.1:10250/pods", node},
		{nodes + "http:n:9100/proxy/metrics", 200, "http://10.0.0.1:9100/metrics", plain},
		{nodes + "https:n:9100/proxy/metrics", 200, "https://10.0.0.1:9100/metrics", plain},
		{nodes + "n:6443/proxy/api", 400, "is the API server's own", nil},
		{nodes + "n:x/proxy/", 400, `\"x\" is not a port`, nil},
		{nodes + "lo/proxy/pods", 200, "https://127.0.0.1:10250/pods", node},
		{nodes + "lo:9100/proxy/", 400, "address not allowed", nil},
		{nodes + "sim-0/proxy/pods", 400, `node \"sim-0\" is simulated`, nil},
		{nodes + "none/proxy/pods", 404, "not found", nil},
	} {
		plain.got, node.got = nil, nil
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", c.path, nil))
		if w.Code != c.code {
			t.Errorf("%s: %d %s, want %d", c.path, w.Code, w.Body, c.code)
			continue
		}
		for _, b := range []*backend{plain, node} {
			switch {
			case b == c.by && (b.got == nil || b.got.URL.String() != c.want):
				t.Errorf("%s: the backend was asked for %v, want %s", c.path, b.got, c.want)
			case b != c.by && b.got != nil:
				t.Errorf("%s: a backend was asked for %s", c.path, b.got.URL)
			}
		}
		if c.by == nil && !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %s, want %s", c.path, w.Body, c.want)
		}
	}
}

// TestProxyHeaders checks that a backend gets neither a client's credentials nor the
// names that a client claims.
func TestProxyHeaders(t *testing.T) {
	s, plain, _ := proxies(t)
	r := httptest.NewRequest("GET", "/api/v1/namespaces/a/pods/p/proxy/", nil)
	for _, h := range []string{"Authorization", "Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-Scopes", "X-Remote-User", "X-Remote-Group", "X-Remote-Uid", "X-Remote-Extra-Scopes"} {
		r.Header.Set(h, "jane")
	}
	r.Header.Set("X-Other", "kept")
	s.ServeHTTP(httptest.NewRecorder(), r)
	if plain.got == nil || plain.got.Header.Get("X-Other") != "kept" {
		t.Fatalf("%v", plain.got)
	}
	for h := range plain.got.Header {
		if plain.got.Header.Get(h) == "jane" {
			t.Errorf("the backend got %s", h)
		}
	}
}

// TestRedirects checks that a backend may redirect its client to paths of its own, and
// not to other hosts.
func TestRedirects(t *testing.T) {
	s, plain, _ := proxies(t)
	const at = "/api/v1/namespaces/a/pods/p/proxy"
	for location, want := range map[string]string{
		"/login":                     at + "/login",
		"login":                      "login",
		"http://10.1.2.3:8080/login": at + "/login",
		"//10.1.2.3:8080/login":      at + "/login",
		"http://evil.example/x":      "",
		"//evil.example/x":           "",
		"https://10.1.2.3:9999/":     "",
		"javascript:alert(1)":        "",
		"http://[bad":                "",
	} {
		plain.resp = func() *http.Response {
			return &http.Response{StatusCode: 302, Header: http.Header{"Location": {location}}}
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", at+"/", nil))
		switch got, _ := url.Parse(w.Header().Get("Location")); {
		case want == "" && (w.Code != 502 || w.Header().Get("Location") != "" || w.Body.String() != "the backend attempted to redirect this request, which is not permitted"):
			t.Errorf("%s: %d to %q: %s", location, w.Code, w.Header().Get("Location"), w.Body)
		case want != "" && (w.Code != 302 || got == nil || got.Path != want):
			t.Errorf("%s: %d to %v, want %s", location, w.Code, got, want)
		}
	}
}

// zeros is a body without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestPages checks that links of pages lead through the proxy, and that large
// pages are not held in memory.
func TestPages(t *testing.T) {
	s, plain, _ := proxies(t)
	const page, rewritten = `<a href="/x">x</a>`, `<a href="/api/v1/namespaces/a/pods/p/proxy/x">x</a>`
	zip := func(r io.Reader, n int64) *bytes.Buffer {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := io.CopyN(z, r, n); err != nil {
			t.Fatal(err)
		}
		z.Close()
		return &b
	}
	for _, c := range []struct {
		name, encoding string
		body           io.Reader
		code           int
		want           string
	}{
		{"a page", "", strings.NewReader(page), 200, rewritten},
		{"a compressed page", "gzip", zip(strings.NewReader(page), int64(len(page))), 200, rewritten},
		{"one in another coding", "br", strings.NewReader("?"), 200, "?"},
		{"one that is not compressed", "gzip", strings.NewReader(page), 503, "reading the backend's page"},
		{"an endless page", "", zeros{}, 503, "the backend's page is larger than 33554432 bytes"},
		{"a compressed page that is large", "gzip", zip(zeros{}, 64<<20), 503, "the backend's page is larger than 33554432 bytes"},
	} {
		plain.resp = func() *http.Response {
			h := http.Header{"Content-Type": {"text/html; charset=utf-8"}, "Content-Length": {"18"}}
			if c.encoding != "" {
				h.Set("Content-Encoding", c.encoding)
			}
			return &http.Response{StatusCode: 200, Header: h, Body: io.NopCloser(c.body)}
		}
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/api/v1/namespaces/a/pods/p/proxy/", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		s.ServeHTTP(w, r)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %.200q, want %d %s", c.name, w.Code, w.Body, c.code, c.want)
		}
	}
}

// TestDialer checks that the addresses of a name are checked when it is dialled.
func TestDialer(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	server := &Server{Config: Config{Own: func(a netip.AddrPort) bool { return a.Addr().IsLoopback() }}}
	for _, host := range []string{"127.0.0.1:", "localhost:", "[::ffff:127.0.0.1]:"} {
		if _, err := server.newBackends().RoundTrip(httptest.NewRequest("GET", "http://"+host+port, nil)); err == nil || !strings.Contains(err.Error(), "address not allowed") {
			t.Errorf("%s: %v", host, err)
		}
		if _, err := Dialer(0, RefuseOwn(server.Own))(t.Context(), "tcp", host+port); err == nil || !strings.Contains(err.Error(), "is the API server's own") {
			t.Errorf("%s: %v", host, err)
		}
	}
	if conn, err := Dialer(0, RefuseOwn(nil))(t.Context(), "tcp", "127.0.0.1:"+port); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
}
