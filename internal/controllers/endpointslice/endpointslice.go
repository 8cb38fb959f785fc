package endpointslice

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// managedBy marks the slices of this controller; upstream's name.
	managedBy = "endpointslice-controller.k8s.io"
	// maxEndpoints is how many endpoints a slice holds; maxAddresses how many
	// an Endpoints object does before it is cut.
	maxEndpoints = 100
	maxAddresses = 1000
)

type controller struct {
	client          kubernetes.Interface
	services        corelisters.ServiceLister
	pods            corelisters.PodLister
	nodes           corelisters.NodeLister
	sliceLister     discoverylisters.EndpointSliceLister
	endpointsLister corelisters.EndpointsLister
	queue           reconcile.Queue
}

// New makes the controller of EndpointSlices.
func New(c controllers.Context) (reconcile.Run, error) {
	core := c.Informers.Core().V1()
	nodes, slicesInf := core.Nodes(), c.Informers.Discovery().V1().EndpointSlices()
	e := newController(c, "endpoint_slice")
	e.nodes, e.sliceLister = nodes.Lister(), slicesInf.Lister()
	owned := func(s *discoveryv1.EndpointSlice) {
		if s.Labels[discoveryv1.LabelManagedBy] == managedBy {
			e.queue.Add(s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName])
		}
	}
	reconcile.Handle(slicesInf.Informer(), nil, func(_, s *discoveryv1.EndpointSlice) { owned(s) }, owned)
	// The garbage collector takes the slices of a Service that has gone.
	return e.run(c, 2, e.reconcileSlices, nil, nodes.Informer(), slicesInf.Informer()), nil
}

// NewEndpoints makes the controller of Endpoints objects.
func NewEndpoints(c controllers.Context) (reconcile.Run, error) {
	endpoints := c.Informers.Core().V1().Endpoints()
	e := newController(c, "endpoint")
	e.endpointsLister = endpoints.Lister()
	gone := func(ctx context.Context, key string) error {
		ns, name := reconcile.SplitKey(key)
		err := e.client.CoreV1().Endpoints(ns).Delete(ctx, name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	return e.run(c, 2, e.reconcileEndpoints, gone, endpoints.Informer()), nil
}

// newController makes what both have: a queue of the Services that change or
// whose pods do.
func newController(c controllers.Context, queue string) *controller {
	core := c.Informers.Core().V1()
	e := &controller{client: c.Client(), services: core.Services().Lister(), pods: core.Pods().Lister(), queue: c.Queue(queue)}
	reconcile.Handle(core.Services().Informer(), reconcile.Enqueue[*v1.Service](e.queue), nil, nil)
	reconcile.Handle(core.Pods().Informer(), func(p *v1.Pod) { e.podChanged(nil, p) }, func(old, p *v1.Pod) { e.podChanged(old, p) }, func(p *v1.Pod) { e.podChanged(nil, p) })
	return e
}

// run calls write with each Service that has a selector, and its pods.
func (e *controller) run(c controllers.Context, workers int, write func(context.Context, *v1.Service, []*v1.Pod) error,
	gone func(context.Context, string) error, reads ...cache.SharedIndexInformer) reconcile.Run {
	core := c.Informers.Core().V1()
	return reconcile.Loop[*v1.Service]{
		Queue: e.queue, Workers: workers, For: core.Services().Informer(), Reads: append(reads, core.Pods().Informer()), Gone: gone,
		Reconcile: func(ctx context.Context, svc *v1.Service) (reconcile.Result, error) {
			if len(svc.Spec.Selector) == 0 || svc.Spec.Type == v1.ServiceTypeExternalName {
				return reconcile.Result{}, nil
			}
			pods, err := e.pods.Pods(svc.Namespace).List(labels.SelectorFromSet(svc.Spec.Selector))
			if err != nil {
				return reconcile.Result{}, err
			}
			slices.SortFunc(pods, func(a, b *v1.Pod) int { return cmp.Compare(a.Name, b.Name) })
			return reconcile.Result{}, write(ctx, svc, pods)
		},
	}.Run
}

// podChanged queues the services that select the pod, before and after.
func (e *controller) podChanged(old, p *v1.Pod) {
	if old != nil && labels.Equals(old.Labels, p.Labels) && old.Status.PodIP == p.Status.PodIP && old.Status.Phase == p.Status.Phase &&
		ready(old) == ready(p) && (old.DeletionTimestamp == nil) == (p.DeletionTimestamp == nil) && old.Spec.NodeName == p.Spec.NodeName {
		return
	}
	all, err := e.services.Services(p.Namespace).List(labels.Everything())
	if err != nil {
		return
	}
	for _, s := range all {
		if len(s.Spec.Selector) == 0 {
			continue
		}
		sel := labels.SelectorFromSet(s.Spec.Selector)
		if sel.Matches(labels.Set(p.Labels)) || old != nil && sel.Matches(labels.Set(old.Labels)) {
			e.queue.Add(reconcile.Key(s))
		}
	}
}

func ready(p *v1.Pod) bool {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == v1.PodReady {
			return p.Status.Conditions[i].Status == v1.ConditionTrue
		}
	}
	return false
}

// serving is a pod behind a service, with the ports that it has for it.
type serving struct {
	pod   *v1.Pod
	ports []v1.EndpointPort
}

// targets gives the pods with an address, each with the service's ports as it
// has them: a named target port may be another number on each.
func targets(svc *v1.Service, pods []*v1.Pod) []serving {
	var out []serving
	for _, p := range pods {
		if p.Status.PodIP == "" || p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed {
			continue
		}
		s := serving{pod: p}
		for i := range svc.Spec.Ports {
			sp := &svc.Spec.Ports[i]
			if n, ok := portOf(p, sp); ok {
				s.ports = append(s.ports, v1.EndpointPort{Name: sp.Name, Port: n, Protocol: sp.Protocol, AppProtocol: sp.AppProtocol})
			}
		}
		if len(s.ports) == 0 && len(svc.Spec.Ports) > 0 {
			continue
		}
		out = append(out, s)
	}
	return out
}

func portOf(p *v1.Pod, sp *v1.ServicePort) (int32, bool) {
	if sp.TargetPort.Type == intstr.Int {
		if n := sp.TargetPort.IntVal; n != 0 {
			return n, true
		}
		return sp.Port, true
	}
	for i := range p.Spec.Containers {
		for _, cp := range p.Spec.Containers[i].Ports {
			if cp.Name == sp.TargetPort.StrVal && cp.Protocol == sp.Protocol {
				return cp.ContainerPort, true
			}
		}
	}
	return 0, false
}

func portsKey(ports []v1.EndpointPort) string { return fmt.Sprintf("%+v", ports) }

func hostname(svc *v1.Service, p *v1.Pod) *string {
	if p.Spec.Hostname != "" && p.Spec.Subdomain == svc.Name {
		return &p.Spec.Hostname
	}
	return nil
}

func ref(p *v1.Pod) *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}
}

func (e *controller) endpoint(svc *v1.Service, p *v1.Pod) discoveryv1.Endpoint {
	ok, gone := ready(p), p.DeletionTimestamp != nil
	ep := discoveryv1.Endpoint{
		Addresses:  []string{p.Status.PodIP},
		Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(svc.Spec.PublishNotReadyAddresses || ok && !gone), Serving: ptr.To(ok), Terminating: ptr.To(gone)},
		TargetRef:  ref(p), Hostname: hostname(svc, p),
	}
	if p.Spec.NodeName != "" {
		ep.NodeName = &p.Spec.NodeName
		if n, err := e.nodes.Get(p.Spec.NodeName); err == nil {
			if z := n.Labels[v1.LabelTopologyZone]; z != "" {
				ep.Zone = &z
			}
		}
	}
	ep.Hints = hints(svc, &ep)
	return ep
}

// reconcileSlices changes as few slices as it can: endpoints stay where they
// are, free places are filled before a slice is made.
func (e *controller) reconcileSlices(ctx context.Context, svc *v1.Service, pods []*v1.Pod) error {
	existing, err := e.sliceLister.EndpointSlices(svc.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: svc.Name, discoveryv1.LabelManagedBy: managedBy}))
	if err != nil {
		return err
	}
	slices.SortFunc(existing, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	type group struct {
		ports []discoveryv1.EndpointPort
		want  map[string]discoveryv1.Endpoint // by address
		order []string
	}
	groups := map[string]*group{}
	var keys []string
	for _, s := range targets(svc, pods) {
		k := portsKey(s.ports)
		g := groups[k]
		if g == nil {
			g = &group{want: map[string]discoveryv1.Endpoint{}}
			for i := range s.ports {
				p := s.ports[i]
				g.ports = append(g.ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
			}
			groups[k] = g
			keys = append(keys, k)
		}
		if _, dup := g.want[s.pod.Status.PodIP]; !dup {
			g.order = append(g.order, s.pod.Status.PodIP)
		}
		g.want[s.pod.Status.PodIP] = e.endpoint(svc, s.pod)
	}
	if len(keys) == 0 {
		keys = append(keys, "")
		groups[""] = &group{} // one empty slice says that there is nothing
	}
	used := map[string]bool{}
	wantLabels := e.labels(svc)
	write := func(old *discoveryv1.EndpointSlice, g *group, eps []discoveryv1.Endpoint) error {
		if old == nil {
			s := &discoveryv1.EndpointSlice{
				ObjectMeta: metav1.ObjectMeta{GenerateName: svc.Name + "-", Namespace: svc.Namespace, Labels: wantLabels, Annotations: trigger(svc, pods),
					OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, v1.SchemeGroupVersion.WithKind("Service"))}},
				AddressType: discoveryv1.AddressTypeIPv4, Endpoints: eps, Ports: g.ports,
			}
			_, err := e.client.DiscoveryV1().EndpointSlices(svc.Namespace).Create(ctx, s, metav1.CreateOptions{})
			return err
		}
		if equality.Semantic.DeepEqual(old.Endpoints, eps) && equality.Semantic.DeepEqual(old.Ports, g.ports) && labels.Equals(old.Labels, wantLabels) {
			return nil
		}
		s := old.DeepCopy()
		s.Endpoints, s.Ports, s.Labels = eps, g.ports, wantLabels
		for k, v := range trigger(svc, pods) {
			if s.Annotations == nil {
				s.Annotations = map[string]string{}
			}
			s.Annotations[k] = v
		}
		_, err := e.client.DiscoveryV1().EndpointSlices(svc.Namespace).Update(ctx, s, metav1.UpdateOptions{})
		return err
	}
	for _, k := range keys {
		g := groups[k]
		type plan struct {
			old *discoveryv1.EndpointSlice
			eps []discoveryv1.Endpoint
		}
		var plans []*plan
		placed := map[string]bool{}
		for _, s := range existing {
			if used[s.Name] || s.DeletionTimestamp != nil || !equality.Semantic.DeepEqual(s.Ports, g.ports) && len(s.Ports) > 0 && len(g.ports) > 0 && len(existing) > 1 {
				continue
			}
			used[s.Name] = true
			p := &plan{old: s, eps: []discoveryv1.Endpoint{}}
			for i := range s.Endpoints {
				if a := s.Endpoints[i].Addresses; len(a) > 0 && !placed[a[0]] {
					if w, ok := g.want[a[0]]; ok {
						p.eps = append(p.eps, w)
						placed[a[0]] = true
					}
				}
			}
			plans = append(plans, p)
		}
		for _, addr := range g.order {
			if placed[addr] {
				continue
			}
			var free *plan
			for _, p := range plans {
				if len(p.eps) < maxEndpoints {
					free = p
					break
				}
			}
			if free == nil {
				free = &plan{eps: []discoveryv1.Endpoint{}}
				plans = append(plans, free)
			}
			free.eps = append(free.eps, g.want[addr])
		}
		if len(plans) == 0 {
			plans = append(plans, &plan{eps: []discoveryv1.Endpoint{}})
		}
		for i, p := range plans {
			if p.old != nil && len(p.eps) == 0 && (i > 0 || len(keys) > 1) {
				used[p.old.Name] = false // not needed: deleted below
				continue
			}
			if err := write(p.old, g, p.eps); err != nil {
				return err
			}
		}
	}
	for _, s := range existing {
		if used[s.Name] || s.DeletionTimestamp != nil {
			continue
		}
		if err := e.client.DiscoveryV1().EndpointSlices(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func (e *controller) labels(svc *v1.Service) map[string]string {
	out := map[string]string{}
	for k, v := range svc.Labels {
		if k != discoveryv1.LabelServiceName && k != discoveryv1.LabelManagedBy && k != v1.IsHeadlessService {
			out[k] = v
		}
	}
	out[discoveryv1.LabelServiceName], out[discoveryv1.LabelManagedBy] = svc.Name, managedBy
	if svc.Spec.ClusterIP == v1.ClusterIPNone {
		out[v1.IsHeadlessService] = ""
	}
	return out
}

// trigger is the annotation with the time of the latest change that led here.
func trigger(svc *v1.Service, pods []*v1.Pod) map[string]string {
	last := svc.CreationTimestamp.Time
	for _, p := range pods {
		for i := range p.Status.Conditions {
			if c := &p.Status.Conditions[i]; c.Type == v1.PodReady && c.LastTransitionTime.After(last) {
				last = c.LastTransitionTime.Time
			}
		}
	}
	return map[string]string{v1.EndpointsLastChangeTriggerTime: last.UTC().Format(time.RFC3339Nano)}
}

// reconcileEndpoints keeps the older form.
func (e *controller) reconcileEndpoints(ctx context.Context, svc *v1.Service, pods []*v1.Pod) error {
	type subset struct {
		ports      []v1.EndpointPort
		ok, others []v1.EndpointAddress
	}
	groups := map[string]*subset{}
	var keys []string
	total := 0
	for _, s := range targets(svc, pods) {
		if s.pod.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses {
			continue
		}
		if total++; total > maxAddresses {
			break
		}
		k := portsKey(s.ports)
		g := groups[k]
		if g == nil {
			g = &subset{ports: s.ports}
			groups[k] = g
			keys = append(keys, k)
		}
		a := v1.EndpointAddress{IP: s.pod.Status.PodIP, TargetRef: ref(s.pod), NodeName: &s.pod.Spec.NodeName}
		if h := hostname(svc, s.pod); h != nil {
			a.Hostname = *h
		}
		if svc.Spec.PublishNotReadyAddresses || ready(s.pod) {
			g.ok = append(g.ok, a)
		} else {
			g.others = append(g.others, a)
		}
	}
	slices.Sort(keys)
	var subsets []v1.EndpointSubset
	for _, k := range keys {
		g := groups[k]
		byIP := func(a, b v1.EndpointAddress) int { return strings.Compare(a.IP, b.IP) }
		slices.SortFunc(g.ok, byIP)
		slices.SortFunc(g.others, byIP)
		subsets = append(subsets, v1.EndpointSubset{Addresses: g.ok, NotReadyAddresses: g.others, Ports: g.ports})
	}
	wantLabels := map[string]string{}
	for k, v := range svc.Labels {
		wantLabels[k] = v
	}
	wantLabels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller"
	if svc.Spec.ClusterIP == v1.ClusterIPNone {
		wantLabels[v1.IsHeadlessService] = ""
	}
	old, err := e.endpointsLister.Endpoints(svc.Namespace).Get(svc.Name)
	if apierrors.IsNotFound(err) {
		_, err = e.client.CoreV1().Endpoints(svc.Namespace).Create(ctx, &v1.Endpoints{
			ObjectMeta: metav1.ObjectMeta{Name: svc.Name, Namespace: svc.Namespace, Labels: wantLabels, Annotations: trigger(svc, pods)}, Subsets: subsets,
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil || equality.Semantic.DeepEqual(old.Subsets, subsets) && labels.Equals(old.Labels, wantLabels) {
		return err
	}
	n := old.DeepCopy()
	n.Subsets, n.Labels = subsets, wantLabels
	for k, v := range trigger(svc, pods) {
		if n.Annotations == nil {
			n.Annotations = map[string]string{}
		}
		n.Annotations[k] = v
	}
	_, err = e.client.CoreV1().Endpoints(svc.Namespace).Update(ctx, n, metav1.UpdateOptions{})
	return err
}
