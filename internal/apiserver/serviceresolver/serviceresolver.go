package serviceresolver

import (
	"net"
	"net/url"
	"strconv"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
)

type resolver struct {
	services corelisters.ServiceLister
	slices   proxy.EndpointSliceGetter
	self     func() string
}

// New makes a resolver. It sends to a ready endpoint, as the service proxy
// would, so that it works where nothing routes cluster addresses; a Service of
// type ExternalName is reached by its name. self gives the address (host:port)
// of this API server, for the Service default/kubernetes; it may be nil.
func New(f informers.SharedInformerFactory, self func() string) (webhook.ServiceResolver, error) {
	slices, err := proxy.NewEndpointSliceIndexerGetter(f.Discovery().V1().EndpointSlices())
	if err != nil {
		return nil, err
	}
	return &resolver{services: f.Core().V1().Services().Lister(), slices: slices, self: self}, nil
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
	u, err := proxy.ResolveEndpoint(r.services, r.slices, namespace, name, port)
	if err != nil && !apierrors.IsServiceUnavailable(err) {
		return nil, apierrors.NewServiceUnavailable(err.Error())
	}
	return u, err
}
