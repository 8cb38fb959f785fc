package proxy

import (
	"fmt"
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/network/reserved"
)

// rig is a proxy whose informers a test fills by hand.
type rig struct {
	testing.TB
	*Proxy
	informers informers.SharedInformerFactory
}

func newRig(t testing.TB, c Config) *rig {
	t.Helper()
	c.Informers = informers.NewSharedInformerFactory(nil, 0)
	c.NodeName = "here"
	if c.NodeIPs == nil {
		c.NodeIPs = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.health != nil {
			p.health.close()
		}
	})
	return &rig{t, p, c.Informers}
}

func (r *rig) indexer(obj runtime.Object) cache.Indexer {
	switch obj.(type) {
	case *v1.Service:
		return r.informers.Core().V1().Services().Informer().GetIndexer()
	case *v1.Node:
		return r.informers.Core().V1().Nodes().Informer().GetIndexer()
	}
	return r.informers.Discovery().V1().EndpointSlices().Informer().GetIndexer()
}

func (r *rig) touched(obj runtime.Object) {
	switch o := obj.(type) {
	case *v1.Service:
		r.mark(types.NamespacedName{Namespace: o.Namespace, Name: o.Name}, nil)
	case *discoveryv1.EndpointSlice:
		r.mark(types.NamespacedName{Namespace: o.Namespace, Name: o.Labels[discoveryv1.LabelServiceName]}, o)
	}
}

// set adds objects to their informers' stores.
func (r *rig) set(objs ...runtime.Object) {
	r.Helper()
	for _, o := range objs {
		if err := r.indexer(o).Update(o); err != nil {
			r.Fatal(err)
		}
		r.touched(o)
	}
}

func (r *rig) remove(objs ...runtime.Object) {
	r.Helper()
	for _, o := range objs {
		if err := r.indexer(o).Delete(o); err != nil {
			r.Fatal(err)
		}
		r.touched(o)
	}
}

func (r *rig) sync() {
	r.Helper()
	if err := r.Sync(); err != nil {
		r.Fatal(err)
	}
}

// service makes a Service with one TCP port, 80.
func service(name, ip string, change ...func(*v1.Service)) *v1.Service {
	s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, SessionAffinity: v1.ServiceAffinityNone,
			Ports: []v1.ServicePort{{Name: "web", Port: 80, Protocol: v1.ProtocolTCP}}}}
	for _, f := range change {
		f(s)
	}
	return s
}

// slice makes a slice of the Service's endpoints on port 8080.
func slice(service, name string, eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: eps,
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("web"), Port: ptr.To[int32](8080), Protocol: ptr.To(v1.ProtocolTCP)}}}
}

func ep(ip string, change ...func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{ip}, NodeName: ptr.To("there")}
	for _, f := range change {
		f(&e)
	}
	return e
}

func onHere(e *discoveryv1.Endpoint)   { e.NodeName = ptr.To("here") }
func notReady(e *discoveryv1.Endpoint) { e.Conditions.Ready = ptr.To(false) }
func terminating(e *discoveryv1.Endpoint) {
	e.Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true), Terminating: ptr.To(true)}
}

// many makes n Services with m endpoints each, in slices of at most 100.
func many(n, m int) (objs []runtime.Object) {
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		objs = append(objs, service(name, netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}).String()))
		var eps []discoveryv1.Endpoint
		for j := range m {
			k := i*m + j
			eps = append(eps, ep(netip.AddrFrom4([4]byte{10, 128 + byte(k>>16), byte(k >> 8), byte(k)}).String()))
			if len(eps) == 100 || j == m-1 {
				objs = append(objs, slice(name, fmt.Sprintf("%s-%d", name, j/100), eps...))
				eps = nil
			}
		}
	}
	return objs
}

// reserving makes a set of reserved addresses.
func reserving(t testing.TB, c reserved.Config) *reserved.Addresses {
	t.Helper()
	a, err := reserved.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sourced is an informer of what a test adds to its source.
type sourced struct {
	*cachetesting.FakeControllerSource
	informer cache.SharedIndexInformer
}

// source starts an informer of a kind of objects.
func source(t testing.TB, of runtime.Object) *sourced {
	t.Helper()
	s := &sourced{FakeControllerSource: cachetesting.NewFakeControllerSource()}
	s.informer = cache.NewSharedIndexInformer(s, of, 0, cache.Indexers{})
	done := make(chan struct{})
	go func() { defer close(done); s.informer.RunWithContext(t.Context()) }()
	t.Cleanup(func() { <-done })
	return s
}
