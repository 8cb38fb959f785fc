package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/network/dns"
)

// clusterDomain is the domain of the Services' names.
const clusterDomain = "cluster.local"

// dnsProxy is the label by which service proxies ignore a Service. The nodes
// themselves have the address of the Service kube-dns.
const dnsProxy, dnsProxyName = "service.kubernetes.io/service-proxy-name", "keelson-dns"

// dnsAddress returns the cluster address of the Service kube-dns: the tenth of
// the range, as upstream's installers choose it.
func dnsAddress(services netip.Prefix) netip.Addr {
	a := services.Masked().Addr()
	for range 10 {
		a = a.Next()
	}
	return a
}

// dnsService returns the Service of the name server.
func dnsService(address netip.Addr) *v1.Service {
	return &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-dns", Namespace: metav1.NamespaceSystem, Labels: map[string]string{
			"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "Keelson", dnsProxy: dnsProxyName}},
		Spec: v1.ServiceSpec{ClusterIP: address.String(), Ports: []v1.ServicePort{
			{Name: "dns", Port: 53, Protocol: v1.ProtocolUDP, TargetPort: intstr.FromInt32(53)},
			{Name: "dns-tcp", Port: 53, Protocol: v1.ProtocolTCP, TargetPort: intstr.FromInt32(53)}}}}
}

// nameServer returns the address of the cluster's name server; it is invalid if
// there is none.
func (o *ProcessOptions) nameServer(ctx context.Context, client kubernetes.Interface) (netip.Addr, error) {
	if o.ClusterDNS.IsValid() {
		return o.ClusterDNS, nil
	}
	s, err := client.CoreV1().Services(metav1.NamespaceSystem).Get(ctx, "kube-dns", metav1.GetOptions{})
	builtin := o.Network.DNS != None
	switch {
	case apierrors.IsNotFound(err) && !builtin:
		return netip.Addr{}, nil
	case apierrors.IsNotFound(err):
		return netip.Addr{}, errors.New("there is no Service kube-system/kube-dns whose address the name server could have: run keelson agent prepare once, which makes it, or give --cluster-dns, or --dns none")
	case err != nil:
		return netip.Addr{}, fmt.Errorf("the address of the cluster's name server: %w", err)
	case builtin && s.Labels[dnsProxy] != dnsProxyName:
		return netip.Addr{}, errors.New("the Service kube-system/kube-dns is another name server's: give --dns none")
	}
	a, err := netip.ParseAddr(s.Spec.ClusterIP)
	if err != nil {
		return a, fmt.Errorf("the address of the Service kube-system/kube-dns: %w: give --cluster-dns", err)
	}
	return a, nil
}

// startDNS starts the name server, at the address of the Service kube-dns.
func (h *host) startDNS(o Options) error {
	s, err := dns.New(dns.Config{Domain: clusterDomain, Addresses: []netip.Addr{h.dns}, Informers: h.informers, Links: dns.Link(), Clock: h.clock, NodeName: o.Name, Trace: h.trace("dns"),
		Problem: h.problem("keelson-dns", o, "FailedToResolveNames", "Names are not resolved as they should be")})
	if err != nil {
		return fmt.Errorf("dns: %w", err)
	}
	h.Go(func() {
		if err := s.Run(h.Ctx); err != nil {
			klog.FromContext(h.Ctx).Error(err, "The name server has ended")
		}
	})
	return nil
}

// publishDNS creates the Service kube-dns, and retries until that succeeds. With
// another implementation of DNS (builtin is false) it deletes its own Service,
// so that the other can have that name and address.
func (s *Server) publishDNS(builtin bool) {
	services := s.Admin.CoreV1().Services(metav1.NamespaceSystem)
	want := dnsService(dnsAddress(s.ServiceCIDR))
	// The error is that of s.Ctx, which ends with the cluster.
	_ = wait.PollUntilContextCancel(s.Ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		old, err := services.Get(ctx, want.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) && builtin:
			_, err = services.Create(ctx, want, metav1.CreateOptions{})
		case apierrors.IsNotFound(err):
			err = nil
		case err == nil && !builtin && old.Labels[dnsProxy] == dnsProxyName:
			err = services.Delete(ctx, old.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(old.UID))})
		case err == nil && builtin && (old.Spec.ClusterIP != want.Spec.ClusterIP || old.Labels[dnsProxy] != dnsProxyName):
			klog.FromContext(ctx).Info("The Service kube-system/kube-dns is not the one of this cluster's own name server; start with --dns none if that is meant",
				"address", old.Spec.ClusterIP, "own", want.Spec.ClusterIP)
		}
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Publishing the Service kube-dns failed; trying again")
		}
		return err == nil, nil
	})
}
