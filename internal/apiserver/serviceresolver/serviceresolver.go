package serviceresolver

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"

	"keelson.dev/keelson/internal/api/core"
)

type resolver struct {
	services corelisters.ServiceLister
	pods     corelisters.PodLister
	nodes    corelisters.NodeLister
	slices   proxy.EndpointSliceGetter
	self     func() string
}

// New makes a resolver. It sends to a ready endpoint, as the service proxy
// would, so that it works where nothing routes cluster addresses; a Service of
// type ExternalName is reached by its name. self gives the address (host:port)
// of this API server, for the Service default/kubernetes; it may be nil. Endpoints
// that are names are left out, as are those of simulated pods.
func New(f informers.SharedInformerFactory, self func() string) (webhook.ServiceResolver, error) {
	slices, err := proxy.NewEndpointSliceIndexerGetter(f.Discovery().V1().EndpointSlices())
	if err != nil {
		return nil, err
	}
	c := f.Core().V1()
	return &resolver{services: c.Services().Lister(), pods: c.Pods().Lister(), nodes: c.Nodes().Lister(), slices: slices, self: self}, nil
}

// ResolveEndpoint implements webhook.ServiceResolver. port is the Service's.
func (r *resolver) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	if r.self != nil && namespace == "default" && name == "kubernetes" && port == 443 {
		if host := r.self(); host != "" {
			return &url.URL{Scheme: "https", Host: host}, nil
		}
	}
	svc, err := r.services.Services(namespace).Get(name)
	if err != nil {
		return nil, err
	}
	if svc.Spec.Type == v1.ServiceTypeExternalName {
		return &url.URL{Scheme: "https", Host: net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(port)))}, nil
	}
	host, err := r.endpoint(svc, port)
	if err != nil && !apierrors.IsServiceUnavailable(err) {
		return nil, apierrors.NewServiceUnavailable(err.Error())
	}
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: "https", Host: host}, nil
}

// endpoint returns the address of a ready endpoint behind the port of svc.
func (r *resolver) endpoint(svc *v1.Service, port int32) (string, error) {
	at := slices.IndexFunc(svc.Spec.Ports, func(p v1.ServicePort) bool { return p.Port == port })
	if at < 0 {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", port, svc.Name))
	}
	all, err := r.slices.GetEndpointSlices(svc.Namespace, svc.Name)
	if err != nil {
		return "", err
	}
	all = slices.DeleteFunc(slices.Clone(all), func(s *discoveryv1.EndpointSlice) bool { return s.AddressType == discoveryv1.AddressTypeFQDN })
	family := v1.IPFamilyUnknown
	if len(svc.Spec.IPFamilies) > 0 {
		family = svc.Spec.IPFamilies[0]
	}
	simulated := false
	host, err := proxy.RandomEndpoint(svc.Name, all, svc.Spec.Ports[at].Name, family, func(e *discoveryv1.Endpoint) bool {
		if len(e.Addresses) > 0 && r.simulated(svc.Namespace, e) {
			simulated = true
			return false
		}
		return len(e.Addresses) > 0
	})
	if err != nil && simulated {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q: its pods are simulated, nothing listens at their addresses", svc.Name))
	}
	return host, err
}

// simulated reports whether the endpoint is a pod on a simulated node.
func (r *resolver) simulated(namespace string, e *discoveryv1.Endpoint) bool {
	name := ""
	if e.NodeName != nil {
		name = *e.NodeName
	} else if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
		if pod, err := r.pods.Pods(namespace).Get(e.TargetRef.Name); err == nil {
			name = pod.Spec.NodeName
		}
	}
	node, err := r.nodes.Get(name)
	return err == nil && core.Simulated(node)
}
