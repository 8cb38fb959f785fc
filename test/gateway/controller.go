package gateway

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// ControllerName is the name of the controller in GatewayClasses.
const ControllerName = "example.com/nginx"

// controller serves the Gateways of its classes at an address of the machine: HTTP
// listeners, and HTTPRoutes of the Gateway's own namespace with host names, paths, weights and
// headers of requests to set.
type controller struct {
	client.Client
	address netip.Addr
	nginx   *nginx
}

// setUp adds the controller to a manager. Everything is looked at together: a site is one
// file.
func (c *controller) setUp(m ctrl.Manager) error {
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: "all"}}}
	})
	return ctrl.NewControllerManagedBy(m).Named("gateway").
		Watches(&gatewayv1.GatewayClass{}, all).Watches(&gatewayv1.Gateway{}, all).Watches(&gatewayv1.HTTPRoute{}, all).
		Watches(&v1.Service{}, all).Watches(&discoveryv1.EndpointSlice{}, all).
		Complete(c)
}

// Reconcile implements reconcile.Reconciler.
func (c *controller) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	classes, gateways, routes := &gatewayv1.GatewayClassList{}, &gatewayv1.GatewayList{}, &gatewayv1.HTTPRouteList{}
	for _, l := range []client.ObjectList{classes, gateways, routes} {
		if err := c.List(ctx, l); err != nil {
			return reconcile.Result{}, err
		}
	}
	ours := map[gatewayv1.ObjectName]bool{}
	for i := range classes.Items {
		class := &classes.Items[i]
		if class.Spec.ControllerName != ControllerName {
			continue
		}
		ours[gatewayv1.ObjectName(class.Name)] = true
		if err := status(ctx, c.Client, class, func(x *gatewayv1.GatewayClass) {
			accept(&x.Status.Conditions, x.Generation, string(gatewayv1.GatewayClassConditionStatusAccepted), string(gatewayv1.GatewayClassReasonAccepted))
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	slices.SortFunc(routes.Items, func(a, b gatewayv1.HTTPRoute) int { // the older one has precedence
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name))
	})
	s := &site{}
	parents := make([][]gatewayv1.RouteParentStatus, len(routes.Items))
	attached := map[types.NamespacedName]map[gatewayv1.SectionName]int32{}
	var served []*gatewayv1.Gateway
	for i := range gateways.Items {
		g := &gateways.Items[i]
		if !ours[g.Spec.GatewayClassName] {
			continue
		}
		served = append(served, g)
		counts := map[gatewayv1.SectionName]int32{}
		attached[client.ObjectKeyFromObject(g)] = counts
		for _, l := range g.Spec.Listeners {
			if at := c.listen(l); l.Protocol == gatewayv1.HTTPProtocolType && !slices.Contains(s.Listen, at) {
				s.Listen = append(s.Listen, at)
			}
		}
		for j := range routes.Items {
			r := &routes.Items[j]
			for _, ref := range r.Spec.ParentRefs {
				if string(ref.Name) != g.Name || string(ptr.Deref(ref.Namespace, gatewayv1.Namespace(r.Namespace))) != g.Namespace {
					continue
				}
				p, err := c.attach(ctx, s, g, r, ref, counts)
				if err != nil {
					return reconcile.Result{}, err
				}
				parents[j] = append(parents[j], p)
			}
		}
	}
	if err := c.nginx.serve(ctx, s); err != nil {
		return reconcile.Result{}, err
	}
	for _, g := range served {
		if err := status(ctx, c.Client, g, func(x *gatewayv1.Gateway) { c.programmed(x, attached[client.ObjectKeyFromObject(x)]) }); err != nil {
			return reconcile.Result{}, err
		}
	}
	for j := range routes.Items {
		if err := status(ctx, c.Client, &routes.Items[j], func(x *gatewayv1.HTTPRoute) {
			was := x.Status.Parents
			x.Status.Parents = slices.DeleteFunc(slices.Clone(was), func(p gatewayv1.RouteParentStatus) bool { return p.ControllerName == ControllerName })
			for _, p := range parents[j] {
				conditions := p.Conditions
				p.Conditions = nil
				for _, old := range was {
					if old.ControllerName == ControllerName && reflect.DeepEqual(old.ParentRef, p.ParentRef) {
						p.Conditions = slices.Clone(old.Conditions)
					}
				}
				for _, cond := range conditions {
					meta.SetStatusCondition(&p.Conditions, cond)
				}
				x.Status.Parents = append(x.Status.Parents, p)
			}
		}); err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{}, nil
}

// listen returns where nginx listens for a listener.
func (c *controller) listen(l gatewayv1.Listener) string {
	return net.JoinHostPort(c.address.String(), strconv.Itoa(int(l.Port)))
}

// attach adds what a route serves at a Gateway to the site, and returns its status there.
func (c *controller) attach(ctx context.Context, s *site, g *gatewayv1.Gateway, r *gatewayv1.HTTPRoute, ref gatewayv1.ParentReference, counts map[gatewayv1.SectionName]int32) (gatewayv1.RouteParentStatus, error) {
	var locations []location
	resolved := metav1.Condition{Type: string(gatewayv1.RouteConditionResolvedRefs), Status: metav1.ConditionTrue, Reason: string(gatewayv1.RouteReasonResolvedRefs), ObservedGeneration: r.Generation}
	for _, rule := range r.Spec.Rules {
		var l location
		for _, f := range rule.Filters {
			if f.RequestHeaderModifier != nil {
				for _, h := range f.RequestHeaderModifier.Set {
					l.Set = append(l.Set, [2]string{string(h.Name), h.Value})
				}
			}
		}
		for _, b := range rule.BackendRefs {
			found, err := c.backends(ctx, r.Namespace, b)
			if err != nil {
				return gatewayv1.RouteParentStatus{}, err
			}
			if found == nil {
				resolved.Status, resolved.Reason, resolved.Message = metav1.ConditionFalse, string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("there is no Service %s with this port", b.Name)
			}
			l.Backends = append(l.Backends, found...)
		}
		for _, m := range rule.Matches {
			path := ptr.Deref(ptr.Deref(m.Path, gatewayv1.HTTPPathMatch{}).Value, "/")
			switch {
			case ptr.Deref(m.Path.Type, gatewayv1.PathMatchPathPrefix) == gatewayv1.PathMatchExact:
				l.Path = "= " + path
				locations = append(locations, l)
			case path == "/":
				l.Path = path
				locations = append(locations, l)
			default: // a prefix is one of whole elements
				path = strings.TrimSuffix(path, "/")
				for _, p := range []string{"= " + path, path + "/"} {
					l.Path = p
					locations = append(locations, l)
				}
			}
		}
	}
	accepted := metav1.Condition{Type: string(gatewayv1.RouteConditionAccepted), Status: metav1.ConditionFalse, Reason: string(gatewayv1.RouteReasonNoMatchingListenerHostname), ObservedGeneration: r.Generation}
	for _, l := range g.Spec.Listeners {
		if ref.SectionName != nil && *ref.SectionName != l.Name {
			continue
		}
		names := hostnames(string(ptr.Deref(l.Hostname, "")), r.Spec.Hostnames)
		if len(names) == 0 {
			continue
		}
		accepted.Status, accepted.Reason = metav1.ConditionTrue, string(gatewayv1.RouteReasonAccepted)
		counts[l.Name]++
		for _, n := range names {
			i := slices.IndexFunc(s.Hosts, func(h host) bool { return h.Name == n && h.Listen[0] == c.listen(l) })
			if i < 0 {
				i = len(s.Hosts)
				s.Hosts = append(s.Hosts, host{Listen: []string{c.listen(l)}, Name: n})
			}
			for _, x := range locations {
				if !slices.ContainsFunc(s.Hosts[i].Locations, func(y location) bool { return y.Path == x.Path }) {
					s.Hosts[i].Locations = append(s.Hosts[i].Locations, x)
				}
			}
		}
	}
	return gatewayv1.RouteParentStatus{ParentRef: ref, ControllerName: ControllerName, Conditions: []metav1.Condition{accepted, resolved}}, nil
}

// hostnames returns the names that a listener and a route have in common.
func hostnames(listener string, route []gatewayv1.Hostname) (out []string) {
	if len(route) == 0 {
		return []string{cmp.Or(listener, "_")}
	}
	within := func(name, pattern string) bool {
		suffix, wild := strings.CutPrefix(pattern, "*")
		return name == pattern || wild && strings.HasSuffix(name, suffix)
	}
	for _, h := range route {
		switch name := string(h); {
		case listener == "" || within(name, listener):
			out = append(out, name)
		case within(listener, name):
			out = append(out, listener)
		}
	}
	return out
}

// backends returns the ready endpoints of a Service's port, nil if there is no such port. The
// weight of the Service is that of each of its endpoints, so that it holds for Services of
// equally many.
func (c *controller) backends(ctx context.Context, namespace string, ref gatewayv1.HTTPBackendRef) ([]backend, error) {
	s := &v1.Service{}
	if err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: string(ref.Name)}, s); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	i := slices.IndexFunc(s.Spec.Ports, func(p v1.ServicePort) bool { return ref.Port != nil && p.Port == int32(*ref.Port) })
	if i < 0 {
		return nil, nil
	}
	found := &discoveryv1.EndpointSliceList{}
	if err := c.List(ctx, found, client.InNamespace(namespace), client.MatchingLabels{discoveryv1.LabelServiceName: s.Name}); err != nil {
		return nil, err
	}
	out := []backend{}
	weight := ptr.Deref(ref.Weight, 1)
	for _, es := range found.Items {
		for _, p := range es.Ports {
			if ptr.Deref(p.Name, "") != s.Spec.Ports[i].Name || p.Port == nil || weight == 0 {
				continue
			}
			for _, e := range es.Endpoints {
				if ptr.Deref(e.Conditions.Ready, true) {
					out = append(out, backend{net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))), weight})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b backend) int { return cmp.Compare(a.Address, b.Address) })
	return out, nil
}

// programmed sets the status of a Gateway whose listeners are served, with the numbers of
// their routes.
func (c *controller) programmed(g *gatewayv1.Gateway, routes map[gatewayv1.SectionName]int32) {
	st := &g.Status
	accept(&st.Conditions, g.Generation, string(gatewayv1.GatewayConditionAccepted), string(gatewayv1.GatewayReasonAccepted))
	accept(&st.Conditions, g.Generation, string(gatewayv1.GatewayConditionProgrammed), string(gatewayv1.GatewayReasonProgrammed))
	st.Addresses = []gatewayv1.GatewayStatusAddress{{Type: ptr.To(gatewayv1.IPAddressType), Value: c.address.String()}}
	was := st.Listeners
	st.Listeners = nil
	for _, l := range g.Spec.Listeners {
		x := gatewayv1.ListenerStatus{Name: l.Name}
		for _, old := range was {
			if old.Name == l.Name {
				x = *old.DeepCopy()
			}
		}
		x.AttachedRoutes = routes[l.Name]
		x.SupportedKinds = []gatewayv1.RouteGroupKind{}
		if l.Protocol == gatewayv1.HTTPProtocolType {
			x.SupportedKinds = []gatewayv1.RouteGroupKind{{Group: ptr.To(gatewayv1.Group(gatewayv1.GroupName)), Kind: "HTTPRoute"}}
			accept(&x.Conditions, g.Generation, string(gatewayv1.ListenerConditionAccepted), string(gatewayv1.ListenerReasonAccepted))
			accept(&x.Conditions, g.Generation, string(gatewayv1.ListenerConditionProgrammed), string(gatewayv1.ListenerReasonProgrammed))
			accept(&x.Conditions, g.Generation, string(gatewayv1.ListenerConditionResolvedRefs), string(gatewayv1.ListenerReasonResolvedRefs))
		} else {
			meta.SetStatusCondition(&x.Conditions, metav1.Condition{Type: string(gatewayv1.ListenerConditionAccepted), Status: metav1.ConditionFalse, Reason: string(gatewayv1.ListenerReasonUnsupportedProtocol), ObservedGeneration: g.Generation})
			meta.SetStatusCondition(&x.Conditions, metav1.Condition{Type: string(gatewayv1.ListenerConditionProgrammed), Status: metav1.ConditionFalse, Reason: string(gatewayv1.ListenerReasonInvalid), ObservedGeneration: g.Generation})
		}
		st.Listeners = append(st.Listeners, x)
	}
}

// accept sets a condition to true.
func accept(conditions *[]metav1.Condition, generation int64, kind, reason string) {
	meta.SetStatusCondition(conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, ObservedGeneration: generation})
}

// status writes an object's status if change makes a difference.
func status[T client.Object](ctx context.Context, c client.Client, obj T, change func(T)) error {
	x := obj.DeepCopyObject().(T)
	change(x)
	if reflect.DeepEqual(x, obj) {
		return nil
	}
	return client.IgnoreNotFound(c.Status().Update(ctx, x))
}
