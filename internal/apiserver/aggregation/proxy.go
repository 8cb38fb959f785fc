package aggregation

import (
	"net/http"
	"net/url"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/httpstream"
	machineryproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/transport"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/apiserver/answer"
)

// maxList bounds what a client in this process is answered, in bytes.
const maxList = 64 << 20

// Handler returns the way to the server of a group version, nil if no other
// server serves it. The requests that it takes have their user in the context.
func (r *Registry) Handler(group, version string) http.Handler {
	b := r.backend(schema.GroupVersion{Group: group, Version: version})
	if b == nil {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.pass(b, w, req) })
}

// pass sends the request on, with its user in the headers of the request-header
// protocol.
func (r *Registry) pass(b *backend, w http.ResponseWriter, req *http.Request) {
	unavailable := func() { http.Error(w, "service unavailable", http.StatusServiceUnavailable) }
	if !b.available {
		unavailable()
		return
	}
	if b.transportErr != nil {
		http.Error(w, b.transportErr.Error(), http.StatusInternalServerError)
		return
	}
	u, ok := request.UserFrom(req.Context())
	if !ok {
		http.Error(w, "missing user", http.StatusInternalServerError)
		return
	}
	host, err := r.resolve(b)
	if err != nil {
		klog.FromContext(req.Context()).Error(err, "Resolving an aggregated API's service failed", "apiService", b.service.Name)
		unavailable()
		return
	}
	location := &url.URL{Scheme: "https", Host: host, Path: req.URL.Path, RawQuery: req.URL.Query().Encode()}
	out, cancel := proxy.NewRequestForProxy(location, req)
	defer cancel()
	upgrade := httpstream.IsUpgradeRequest(req)
	if upgrade {
		// An upgrade does not use the transport, so its headers are set here.
		transport.SetAuthProxyHeaders(out, u.GetName(), u.GetUID(), u.GetGroups(), u.GetExtra())
	}
	rt := transport.NewAuthProxyRoundTripper(u.GetName(), u.GetUID(), u.GetGroups(), u.GetExtra(), b.transport)
	if req.RemoteAddr == answer.InProcess {
		if q := req.URL.Query(); q.Has("watch") {
			rt = answer.BoundedEvents(rt)
		} else {
			rt = answer.Bounded(rt, maxList)
		}
	}
	h := machineryproxy.NewUpgradeAwareHandler(location, rt, true, upgrade, responder{})
	// A client would follow it with this server's credentials, or this server's client
	// in this process (CVE-2022-3172).
	h.RejectForwardingRedirects = true
	h.ServeHTTP(w, out)
}

func (r *Registry) resolve(b *backend) (string, error) {
	s := b.service.Spec.Service
	u, err := r.resolver.ResolveEndpoint(s.Namespace, s.Name, *s.Port)
	if err != nil {
		return "", err
	}
	return u.Host, nil
}

type responder struct{}

// Error implements proxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}
