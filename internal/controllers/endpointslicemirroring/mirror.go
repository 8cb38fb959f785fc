package endpointslicemirroring

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"
)

// maxPerSubset is how many addresses of the same ports are mirrored: upstream's
// default, and what a slice can hold.
const maxPerSubset = 1000

// skipped counts the addresses that are not mirrored.
type skipped struct {
	invalid int // no IP address
	excess  int // above maxPerSubset
}

// mirror returns the slices that say what e does: one for each address family of
// each set of ports, with the endpoints in order, so that a change of order in e
// changes nothing.
func mirror(e *v1.Endpoints) (out []*discoveryv1.EndpointSlice, left skipped) {
	type group struct {
		ports    []discoveryv1.EndpointPort
		size     int
		families map[discoveryv1.AddressType]map[string]discoveryv1.Endpoint // by identity
	}
	groups := map[string]*group{}
	for i := range e.Subsets {
		ports := portsOf(e.Subsets[i].Ports)
		key := portsKey(ports)
		g := groups[key]
		if g == nil {
			g = &group{ports: ports, families: map[discoveryv1.AddressType]map[string]discoveryv1.Endpoint{}}
			groups[key] = g
		}
		add := func(addresses []v1.EndpointAddress, ready bool) {
			for j := range addresses {
				if g.size == maxPerSubset {
					left.excess += len(addresses) - j
					return
				}
				ep, family, ok := endpoint(&addresses[j], ready)
				if !ok {
					left.invalid++
					continue
				}
				g.size++
				if g.families[family] == nil {
					g.families[family] = map[string]discoveryv1.Endpoint{}
				}
				g.families[family][identity(&ep)] = ep
			}
		}
		add(e.Subsets[i].Addresses, true)
		add(e.Subsets[i].NotReadyAddresses, false)
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
			byIdentity := groups[key].families[family]
			if len(byIdentity) == 0 {
				continue
			}
			s := &discoveryv1.EndpointSlice{ObjectMeta: meta(e), AddressType: family, Ports: groups[key].ports}
			for _, id := range slices.Sorted(maps.Keys(byIdentity)) {
				s.Endpoints = append(s.Endpoints, byIdentity[id])
			}
			out = append(out, s)
		}
	}
	return out, left
}

// meta returns the metadata of e's slices.
func meta(e *v1.Endpoints) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		// A Service's name is short enough for a dash and a suffix.
		GenerateName: e.Name + "-", Namespace: e.Namespace, Labels: map[string]string{}, Annotations: map[string]string{},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(e, v1.SchemeGroupVersion.WithKind("Endpoints"))},
	}
	maps.Copy(m.Labels, e.Labels)
	m.Labels[discoveryv1.LabelServiceName], m.Labels[discoveryv1.LabelManagedBy] = e.Name, managedBy
	maps.Copy(m.Annotations, e.Annotations)
	delete(m.Annotations, v1.EndpointsLastChangeTriggerTime)
	delete(m.Annotations, v1.LastAppliedConfigAnnotation)
	return m
}

// endpoint returns the endpoint at an address and its family; ok is false where
// the address is none. Leading zeros, which old objects may have, are dropped.
func endpoint(a *v1.EndpointAddress, ready bool) (e discoveryv1.Endpoint, family discoveryv1.AddressType, ok bool) {
	ip := netutils.ParseIPSloppy(a.IP)
	if ip == nil {
		return e, "", false
	}
	family = discoveryv1.AddressTypeIPv6
	if ip.To4() != nil {
		family = discoveryv1.AddressTypeIPv4
	}
	e = discoveryv1.Endpoint{Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, NodeName: a.NodeName, TargetRef: a.TargetRef}
	if a.Hostname != "" {
		e.Hostname = &a.Hostname
	}
	return e, family, true
}

// identity tells an endpoint from the others of its slice: several pods of the
// host's network have the same address.
func identity(e *discoveryv1.Endpoint) string {
	ref := ptr.Deref(e.TargetRef, v1.ObjectReference{})
	return strings.Join([]string{e.Addresses[0], ptr.Deref(e.Hostname, ""), ref.Namespace, ref.Name}, "\n")
}

func portsOf(ports []v1.EndpointPort) []discoveryv1.EndpointPort {
	out := []discoveryv1.EndpointPort{}
	for i := range ports {
		p := &ports[i]
		out = append(out, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
	}
	return out
}

// portsKey returns a key that is equal for equal ports, in any order.
func portsKey(ports []discoveryv1.EndpointPort) string {
	var keys []string
	for i := range ports {
		p := &ports[i]
		keys = append(keys, fmt.Sprintf("%q %d %s %q", ptr.Deref(p.Name, ""), ptr.Deref(p.Port, 0), cmp.Or(ptr.Deref(p.Protocol, ""), v1.ProtocolTCP), ptr.Deref(p.AppProtocol, "")))
	}
	slices.Sort(keys)
	return strings.Join(keys, ",")
}
