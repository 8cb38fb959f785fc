package apiserver

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	machineryproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/util/proxy"

	"keelson.dev/keelson/internal/apiserver/answer"
	"keelson.dev/keelson/internal/store"
)

// target splits the name of a proxied object: [scheme:]name[:port].
func (r proxied) target() (scheme, name, port string, err error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(r.info.Name)
	if !ok {
		return "", "", "", badRequest("invalid %s request %q", r.row.Singular, r.info.Name)
	}
	return scheme, name, port, nil
}

// proxiedPath returns the part of the request's path that is below the proxy.
func (r proxied) proxiedPath() string {
	path := ""
	if len(r.info.Parts) > 3 { // resource, name, "proxy", ...
		path = "/" + strings.Join(r.info.Parts[3:], "/")
	}
	if strings.HasSuffix(r.info.Path, "/") && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	return path
}

// proxyTo passes the request on to path at the backend.
func (r proxied) proxyTo(backend *url.URL, path string, transport http.RoundTripper) error {
	loc := &url.URL{Scheme: cmp.Or(backend.Scheme, "http"), Host: backend.Host, Path: utilnet.JoinPreservingTrailingSlash(backend.Path, path)}
	if _, err := url.Parse(loc.String()); err != nil {
		return badRequest("invalid proxy request %q: %v", r.info.Name, err)
	}
	h := machineryproxy.NewUpgradeAwareHandler(loc, answer.SameHost(transport), true, false, responder{r.call})
	r.code = http.StatusOK
	h.ServeHTTP(r.w, r.req)
	return nil
}

// podProxy passes a request on to a port of a pod.
func (r proxied) podProxy() error {
	scheme, name, port, err := r.target()
	if err != nil {
		return err
	}
	opts := &v1.PodProxyOptions{Path: r.proxiedPath()}
	if err := r.connect(opts); err != nil {
		return err
	}
	r.info.Name = name
	pod, err := r.pod()
	if err != nil {
		return err
	}
	if port, err = podPort(pod, port); err != nil {
		return err
	}
	if r.simulated(pod) {
		return badRequest("pod %q is simulated: nothing listens at its address", pod.Name)
	}
	host, err := r.address(pod.Status.PodIP, port)
	if err != nil {
		return err
	}
	return r.proxyTo(&url.URL{Scheme: scheme, Host: host}, opts.Path, r.s.backends)
}

// podPort returns the port of the pod with that number or name, or without either
// its first one; empty if it has none.
func podPort(pod *v1.Pod, asked string) (string, error) {
	for i := range pod.Spec.Containers {
		for _, p := range pod.Spec.Containers[i].Ports {
			if asked == "" || p.Name == asked {
				return strconv.Itoa(int(p.ContainerPort)), nil
			}
		}
	}
	if asked == "" {
		return "", nil
	}
	if n, err := strconv.ParseUint(asked, 10, 16); err != nil || n == 0 {
		return "", badRequest("no port %q found for pod %q", asked, pod.Name)
	}
	return asked, nil
}

// address returns the host and port that requests for port at ip are passed on to;
// without a port it is that of the scheme.
func (r proxied) address(ip, port string) (string, error) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return "", apierrors.NewBadRequest(errAddress.Error())
	}
	n, _ := strconv.ParseUint(port, 10, 16)
	if err := r.s.proxied(netip.AddrPortFrom(a, uint16(n))); err != nil {
		return "", apierrors.NewBadRequest(err.Error())
	}
	return strings.TrimSuffix(net.JoinHostPort(a.String(), port), ":"), nil
}

// serviceProxy passes a request on to a ready endpoint of a service.
func (r proxied) serviceProxy() error {
	scheme, name, port, err := r.target()
	if err != nil {
		return err
	}
	opts := &v1.ServiceProxyOptions{Path: r.proxiedPath()}
	if err := r.connect(opts); err != nil {
		return err
	}
	r.info.Name = name
	e, err := r.entry()
	if err != nil {
		return err
	}
	svc := e.Object().(*v1.Service)
	at := slices.IndexFunc(svc.Spec.Ports, func(p v1.ServicePort) bool {
		return port == "" && len(svc.Spec.Ports) == 1 || p.Name == port || strconv.Itoa(int(p.Port)) == port
	})
	if at < 0 {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", port, name))
	}
	list, err := r.endpoints(svc)
	if err != nil {
		return err
	}
	family := v1.IPFamilyUnknown
	if len(svc.Spec.IPFamilies) > 0 {
		family = svc.Spec.IPFamilies[0]
	}
	simulated := false
	host, err := proxy.RandomEndpoint(svc.Name, list, svc.Spec.Ports[at].Name, family, func(ep *discoveryv1.Endpoint) bool {
		pod := r.behind(svc, ep)
		if pod != nil && r.simulated(pod) {
			simulated = true
			return false
		}
		return pod != nil
	})
	if err != nil && simulated {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q: its pods are simulated, nothing listens at their addresses", name))
	}
	if err != nil {
		return err
	}
	return r.proxyTo(&url.URL{Scheme: scheme, Host: host}, opts.Path, r.s.backends)
}

// endpoints returns the slices of the service that have addresses.
func (r proxied) endpoints(svc *v1.Service) ([]*discoveryv1.EndpointSlice, error) {
	res, err := r.s.Store.List(r.ctx(), r.s.Catalogue.Lookup("discovery.k8s.io", "v1", "endpointslices").Prefix(svc.Namespace), store.ListOptions{})
	if err != nil {
		return nil, r.storeError(err, "")
	}
	var list []*discoveryv1.EndpointSlice
	for _, e := range res.Entries {
		slice := e.Object().(*discoveryv1.EndpointSlice)
		if slice.Labels[discoveryv1.LabelServiceName] == svc.Name && slice.AddressType != discoveryv1.AddressTypeFQDN {
			list = append(list, slice)
		}
	}
	return list, nil
}

// behind returns the pod whose address the endpoint has. It returns nil where there
// is none, or where the address must not be dialled: the right to write endpoints
// must not choose what the API server connects to.
func (r proxied) behind(svc *v1.Service, ep *discoveryv1.Endpoint) *v1.Pod {
	if len(ep.Addresses) == 0 || ep.TargetRef == nil || ep.TargetRef.Kind != "Pod" || ep.TargetRef.Namespace != svc.Namespace {
		return nil
	}
	obj, err := r.Object(pods, svc.Namespace, ep.TargetRef.Name)
	if err != nil {
		return nil
	}
	pod := obj.(*v1.Pod)
	a, err := netip.ParseAddr(ep.Addresses[0])
	if err != nil || !a.Unmap().IsGlobalUnicast() {
		return nil
	}
	for _, ip := range pod.Status.PodIPs {
		if b, err := netip.ParseAddr(ip.IP); err == nil && a == b {
			return pod
		}
	}
	return nil
}

// nodeProxy passes a request on to a node's agent, or to another port of the node, which
// gets no credentials of this server.
func (r proxied) nodeProxy() error {
	scheme, name, port, err := r.target()
	if err != nil {
		return err
	}
	// The agent sees a request by this server, not by the client.
	if err := r.mayUpgrade(); err != nil {
		return err
	}
	opts := &v1.NodeProxyOptions{Path: r.proxiedPath()}
	if err := r.connect(opts); err != nil {
		return err
	}
	base, transport, err := r.node(name, false)
	if err != nil {
		return err
	}
	if port == "" || port == base.Port() {
		return r.proxyTo(base, opts.Path, transport)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return badRequest("invalid node request %q: %q is not a port", r.info.Name, port)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(r.ctx(), "ip", base.Hostname())
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	for _, a := range addrs {
		if _, err := r.address(a.String(), port); err != nil {
			return err
		}
	}
	return r.proxyTo(&url.URL{Scheme: scheme, Host: net.JoinHostPort(base.Hostname(), port)}, opts.Path, r.s.backends)
}
