package kubernetesservice

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/store"
)

// The servers of a store have their addresses under masterPrefix, as upstream's
// have, each for as long as it renews it; the endpoints of the kubernetes Service
// are the addresses there.
const (
	masterPrefix = "/registry/masterleases/"
	masterTTL    = 15 * time.Second
	masterPeriod = 10 * time.Second
)

// Publisher makes the kubernetes Service and the endpoints behind it.
type Publisher struct {
	// Client acts as the API server.
	Client kubernetes.Interface
	// Address is this server's; a loopback address is no endpoint, since pods
	// cannot reach it.
	Address func() netip.Addr
	Port    int
	// ClusterIP is the Service's; NodePort, where it is not 0, makes the Service
	// one of type NodePort with that port.
	ClusterIP netip.Addr
	NodePort  int32
	// Shared reports whether other servers use the same Store: this one's address is
	// then one of several, and renewed while it runs.
	Shared bool
	Store  store.Store
	Clock  clock.WithTicker

	// shared is the address of this server in a store that it shares.
	shared netip.Addr
}

// Run keeps this server published until ctx is done: somebody may delete the objects, and
// the machine's address may change. If other servers share the store it then removes this
// server's address.
func (p *Publisher) Run(ctx context.Context) {
	log := klog.FromContext(ctx)
	for {
		wait := masterPeriod
		if err := p.publish(ctx); err != nil && ctx.Err() == nil {
			log.Error(err, "Publishing the kubernetes service failed; trying again")
			wait = time.Second
		}
		t := p.Clock.NewTimer(wait)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := p.remove(ctx, p.shared); err != nil {
				log.Error(err, "Taking this server's address from the endpoints of the kubernetes Service")
			}
			return
		}
	}
}

func (p *Publisher) publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := p.publishService(ctx); err != nil {
		return err
	}
	address := p.Address()
	switch {
	case address.IsLoopback():
		return nil
	case p.Shared:
		if p.shared.IsValid() && p.shared != address {
			if err := p.remove(ctx, p.shared); err != nil {
				return err
			}
		}
		p.shared = address
		return p.renew(ctx, address)
	default:
		return p.publishEndpoints(ctx, []string{address.String()})
	}
}

var selfLabels = map[string]string{"component": "apiserver", "provider": "kubernetes"}

func (p *Publisher) publishService(ctx context.Context) error {
	services := p.Client.CoreV1().Services(metav1.NamespaceDefault)
	svc := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: metav1.NamespaceDefault, Labels: selfLabels},
		Spec: v1.ServiceSpec{ClusterIP: p.ClusterIP.String(), Ports: []v1.ServicePort{{Name: "https", Port: 443, Protocol: v1.ProtocolTCP}}}}
	svc.Spec.Ports[0].TargetPort.IntVal = int32(p.Port)
	if p.NodePort != 0 {
		svc.Spec.Type, svc.Spec.Ports[0].NodePort = v1.ServiceTypeNodePort, p.NodePort
	}
	old, err := services.Get(ctx, svc.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		if _, err = services.Create(ctx, svc, metav1.CreateOptions{}); err != nil {
			// Another server may have been faster.
			if _, again := services.Get(ctx, svc.Name, metav1.GetOptions{}); again == nil {
				return nil
			}
		}
	case err == nil && (len(old.Spec.Ports) != 1 || old.Spec.Ports[0].TargetPort.IntVal != int32(p.Port) || old.Spec.Ports[0].NodePort != p.NodePort):
		old.Spec.Ports, old.Spec.Type = svc.Spec.Ports, cmp.Or(svc.Spec.Type, v1.ServiceTypeClusterIP)
		_, err = services.Update(ctx, old, metav1.UpdateOptions{})
	}
	return err
}

// publishEndpoints makes addresses the endpoints of the kubernetes Service.
func (p *Publisher) publishEndpoints(ctx context.Context, addresses []string) error {
	eps := &v1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
		Subsets: []v1.EndpointSubset{{Ports: []v1.EndpointPort{{Name: "https", Port: int32(p.Port), Protocol: v1.ProtocolTCP}}}}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(p.Port)), Protocol: ptr.To(v1.ProtocolTCP)}}}
	if netip.MustParseAddr(addresses[0]).Unmap().Is6() {
		slice.AddressType = discoveryv1.AddressTypeIPv6
	}
	for _, a := range addresses {
		eps.Subsets[0].Addresses = append(eps.Subsets[0].Addresses, v1.EndpointAddress{IP: a})
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
	}
	endpoints, slices := p.Client.CoreV1().Endpoints(metav1.NamespaceDefault), p.Client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	if old, err := endpoints.Get(ctx, eps.Name, metav1.GetOptions{}); err != nil || !equality.Semantic.DeepEqual(old.Subsets, eps.Subsets) {
		// An update makes it where there is none.
		if _, err := endpoints.Update(ctx, eps, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	old, err := slices.Get(ctx, slice.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = slices.Create(ctx, slice, metav1.CreateOptions{})
	case err == nil && (!equality.Semantic.DeepEqual(old.Endpoints, slice.Endpoints) || !equality.Semantic.DeepEqual(old.Ports, slice.Ports)):
		_, err = slices.Update(ctx, slice, metav1.UpdateOptions{})
	}
	return err
}

func key(address netip.Addr) string { return masterPrefix + address.String() }

// renew renews this server's address in the store.
func (p *Publisher) renew(ctx context.Context, address netip.Addr) error {
	own := &v1.Endpoints{Subsets: []v1.EndpointSubset{{Addresses: []v1.EndpointAddress{{IP: address.String()}}}}}
	old, err := p.Store.Get(ctx, key(address))
	if err != nil {
		return err
	}
	if old == nil {
		_, err = p.Store.Create(ctx, key(address), own, masterTTL)
	} else {
		_, err = p.Store.Update(ctx, old.Key, old.ModRevision, own, masterTTL)
	}
	if err != nil && !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict) {
		return err
	}
	return p.publishAll(ctx)
}

// publishAll makes the addresses of all servers the endpoints.
func (p *Publisher) publishAll(ctx context.Context) error {
	all, err := p.Store.List(ctx, masterPrefix, store.ListOptions{})
	if err != nil || len(all.Entries) == 0 {
		return err
	}
	var addresses []string
	for _, e := range all.Entries {
		addresses = append(addresses, strings.TrimPrefix(e.Key, masterPrefix))
	}
	slices.Sort(addresses)
	return p.publishEndpoints(ctx, addresses)
}

// remove removes an address of this server, if it has one in the store.
func (p *Publisher) remove(ctx context.Context, address netip.Addr) error {
	if !address.IsValid() {
		return nil
	}
	e, err := p.Store.Get(ctx, key(address))
	if err != nil || e == nil {
		return err
	}
	if _, err := p.Store.Delete(ctx, e.Key, e.ModRevision); err != nil {
		return err
	}
	return p.publishAll(ctx)
}
