package endpointslice

import (
	"cmp"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/endpointslice/topologycache"
	"k8s.io/endpointslice/trafficdist"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

const (
	// managedBy marks the slices of this controller; upstream's name.
	managedBy = "endpointslice-controller.k8s.io"
)

// plan holds the changes to write to a Service's slices of one family.
type plan struct {
	create, update, delete []*discoveryv1.EndpointSlice
	// unchanged are as they should be.
	unchanged []*discoveryv1.EndpointSlice
	// most is how many endpoints a slice holds at most.
	most int
}

// identity tells endpoints of a family apart: pods of one node's network share its
// address.
type identity struct{ address, pod string }

func identify(e *discoveryv1.Endpoint) (id identity) {
	if len(e.Addresses) > 0 {
		id.address = e.Addresses[0]
	}
	if e.TargetRef != nil {
		id.pod = e.TargetRef.Name
	}
	return id
}

// group holds the wanted endpoints of a Service that have equal ports.
type group struct {
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
	slices    []*discoveryv1.EndpointSlice // those that there are with these ports
}

// newPlan compares the endpoints that svc wants, by their ports, with its slices of
// the family, and changes as few of these as it can: endpoints stay where they are;
// new ones fill up slices that change anyway, then one that they all fit in, before
// slices are made.
func newPlan(svc *v1.Service, addressType discoveryv1.AddressType, groups []*group, existing []*discoveryv1.EndpointSlice, most int) plan {
	p := plan{most: most}
	byPorts := func(s *discoveryv1.EndpointSlice) *group {
		for _, g := range groups {
			if equalPorts(g.ports, s.Ports) {
				return g
			}
		}
		return nil
	}
	for _, s := range existing {
		switch g := byPorts(s); {
		case g == nil || !metav1.IsControlledBy(s, svc):
			p.delete = append(p.delete, s)
		default:
			g.slices = append(g.slices, s)
		}
	}
	want := labelsOf(svc)
	for _, g := range groups {
		p.add(svc, addressType, g, want)
	}
	if len(p.create)+len(p.update)+len(p.unchanged) == 0 {
		// One empty slice shows that there are no endpoints.
		empty := newSlice(svc, addressType, nil, want)
		if i := slices.IndexFunc(p.delete, func(s *discoveryv1.EndpointSlice) bool {
			return len(s.Endpoints) == 0 && len(s.Ports) == 0 && maps.Equal(s.Labels, want) && metav1.IsControlledBy(s, svc)
		}); i >= 0 {
			p.unchanged = append(p.unchanged, p.delete[i])
			p.delete = slices.Delete(p.delete, i, i+1)
		} else {
			p.create = append(p.create, empty)
		}
	}
	return p
}

// add plans the slices of a group.
func (p *plan) add(svc *v1.Service, addressType discoveryv1.AddressType, g *group, want map[string]string) {
	left := make(map[identity]int, len(g.endpoints)) // those that are in no slice yet
	for i := range g.endpoints {
		left[identify(&g.endpoints[i])] = i
	}
	var changed, kept []*discoveryv1.EndpointSlice
	for _, s := range g.slices {
		endpoints, same := make([]discoveryv1.Endpoint, 0, len(s.Endpoints)), true
		for i := range s.Endpoints {
			id := identify(&s.Endpoints[i])
			n, ok := left[id]
			if !ok {
				same = false
				continue
			}
			delete(left, id)
			same = same && equal(&g.endpoints[n], &s.Endpoints[i])
			endpoints = append(endpoints, g.endpoints[n])
		}
		switch {
		case same && maps.Equal(s.Labels, want):
			kept = append(kept, s)
		case len(endpoints) == 0:
			p.delete = append(p.delete, s)
		default:
			changed = append(changed, with(s, endpoints, want))
		}
	}
	rest := make([]discoveryv1.Endpoint, 0, len(left))
	for i := range g.endpoints {
		if _, ok := left[identify(&g.endpoints[i])]; ok {
			rest = append(rest, g.endpoints[i])
		}
	}
	fill := func(s *discoveryv1.EndpointSlice) {
		n := max(0, min(len(rest), p.most-len(s.Endpoints)))
		s.Endpoints, rest = append(s.Endpoints, rest[:n]...), rest[n:]
	}
	slices.SortStableFunc(changed, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(len(b.Endpoints), len(a.Endpoints)) })
	for _, s := range changed {
		fill(s)
	}
	for len(rest) > 0 {
		fits := -1 // the fullest that takes all
		for i, s := range kept {
			if len(s.Endpoints)+len(rest) <= p.most && (fits < 0 || len(s.Endpoints) > len(kept[fits].Endpoints)) {
				fits = i
			}
		}
		if fits < 0 {
			s := newSlice(svc, addressType, g.ports, want)
			fill(s)
			p.create = append(p.create, s)
			continue
		}
		s := with(kept[fits], slices.Clone(kept[fits].Endpoints), want)
		for i := range s.Endpoints {
			s.Endpoints[i].Hints = nil // given anew, as all hints of a slice that changes
		}
		kept = slices.Delete(kept, fits, fits+1)
		fill(s)
		changed = append(changed, s)
	}
	p.update, p.unchanged = append(p.update, changed...), append(p.unchanged, kept...)
}

// hint sets the hints by which service proxies choose endpoints that are near: those
// of the annotation topology-mode, which spreads endpoints over the zones by what
// their nodes can do, else those of trafficDistribution. It returns the events to
// record.
func (p *plan) hint(logger klog.Logger, svc *v1.Service, addressType discoveryv1.AddressType, zones *topologycache.TopologyCache) (events []*topologycache.EventBuilder) {
	si := &topologycache.SliceInfo{ServiceKey: svc.Namespace + "/" + svc.Name, AddressType: addressType, ToCreate: p.create, ToUpdate: p.update, Unchanged: p.unchanged}
	if topologyMode(svc) {
		p.create, p.update, events = zones.AddHints(logger, si)
		p.unchanged = si.Unchanged
		return events
	}
	if zones.HasPopulatedHints(si.ServiceKey) {
		events = append(events, &topologycache.EventBuilder{EventType: v1.EventTypeWarning, Reason: "TopologyAwareHintsDisabled",
			Message: topologycache.FormatWithAddressType(topologycache.TopologyAwareHintsDisabled, addressType)})
	}
	zones.RemoveHints(si.ServiceKey, addressType)
	if svc.Spec.TrafficDistribution == nil {
		p.create, p.update = topologycache.RemoveHintsFromSlices(si)
		p.unchanged = si.Unchanged
		return events
	}
	p.create, p.update, p.unchanged = trafficdist.ReconcileHints(svc.Spec.TrafficDistribution, p.create, p.update, p.unchanged)
	return events
}

// topologyMode reports whether the Service's annotation asks for hints by zone.
func topologyMode(svc *v1.Service) bool {
	mode, ok := svc.Annotations[v1.DeprecatedAnnotationTopologyAwareHints]
	if !ok {
		mode = svc.Annotations[v1.AnnotationTopologyMode]
	}
	return mode == "Auto" || mode == "auto"
}

// reuse has slices that are to be deleted take the places of those that are to be
// made.
func (p *plan) reuse(svc *v1.Service) {
	for i := 0; i < len(p.delete) && len(p.create) > 0; {
		old, made := p.delete[i], p.create[len(p.create)-1]
		if old.AddressType != made.AddressType || !metav1.IsControlledBy(old, svc) {
			i++
			continue
		}
		s := with(old, made.Endpoints, made.Labels)
		s.Ports = made.Ports
		p.update = append(p.update, s)
		p.create = p.create[:len(p.create)-1]
		p.delete = slices.Delete(p.delete, i, i+1)
	}
}

// with copies s, but for its endpoints and labels.
func with(s *discoveryv1.EndpointSlice, endpoints []discoveryv1.Endpoint, labels map[string]string) *discoveryv1.EndpointSlice {
	out := *s
	out.ObjectMeta = *s.ObjectMeta.DeepCopy()
	out.Labels, out.Endpoints = labels, endpoints
	return &out
}

func newSlice(svc *v1.Service, addressType discoveryv1.AddressType, ports []discoveryv1.EndpointPort, labels map[string]string) *discoveryv1.EndpointSlice {
	prefix := svc.Name + "-"
	if len(validation.NameIsDNSSubdomain(prefix, true)) > 0 {
		prefix = svc.Name
	}
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{GenerateName: prefix, Namespace: svc.Namespace, Labels: labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, v1.SchemeGroupVersion.WithKind("Service"))}},
		AddressType: addressType, Endpoints: []discoveryv1.Endpoint{}, Ports: ports,
	}
}

// labelsOf returns the labels of svc's slices: its own, but for those that are the
// controller's.
func labelsOf(svc *v1.Service) map[string]string {
	out := map[string]string{}
	maps.Copy(out, svc.Labels)
	delete(out, v1.IsHeadlessService)
	if headless(svc) {
		out[v1.IsHeadlessService] = ""
	}
	out[discoveryv1.LabelServiceName], out[discoveryv1.LabelManagedBy] = svc.Name, managedBy
	return out
}

// equal reports whether two endpoints are the same, but for their hints.
func equal(a, b *discoveryv1.Endpoint) bool {
	return slices.Equal(a.Addresses, b.Addresses) && ptr.Equal(a.Conditions.Ready, b.Conditions.Ready) && ptr.Equal(a.Conditions.Serving, b.Conditions.Serving) &&
		ptr.Equal(a.Conditions.Terminating, b.Conditions.Terminating) && ptr.Equal(a.Hostname, b.Hostname) && ptr.Equal(a.NodeName, b.NodeName) && ptr.Equal(a.Zone, b.Zone) &&
		ptr.Equal(a.TargetRef, b.TargetRef) && len(a.DeprecatedTopology) == 0 && len(b.DeprecatedTopology) == 0
}

// equalPorts reports whether two lists have the same ports, in whatever order.
func equalPorts(a, b []discoveryv1.EndpointPort) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !slices.ContainsFunc(b, func(p discoveryv1.EndpointPort) bool {
			return ptr.Deref(a[i].Name, "") == ptr.Deref(p.Name, "") && ptr.Equal(a[i].Port, p.Port) && ptr.Deref(a[i].Protocol, v1.ProtocolTCP) == ptr.Deref(p.Protocol, v1.ProtocolTCP) &&
				ptr.Equal(a[i].AppProtocol, p.AppProtocol)
		}) {
			return false
		}
	}
	return true
}
