package endpointslice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/endpointslice/topologycache"
	"k8s.io/endpointslice/util"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// controller has what the controllers of both forms need.
type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	services corelisters.ServiceLister
	pods     corelisters.PodLister
	queue    reconcile.Queue
	triggers *util.TriggerTimeTracker
}

// newController makes a controller with a queue of the Services that change or whose
// pods do.
func newController(c controllers.Context, queue string) controller {
	core := c.Informers.Core().V1()
	e := controller{client: c.Client(), recorder: c.Recorder(), services: core.Services().Lister(), pods: core.Pods().Lister(), queue: c.Queue(queue), triggers: util.NewTriggerTimeTracker()}
	reconcile.Handle(core.Services().Informer(), reconcile.Enqueue[*v1.Service](e.queue), nil, nil)
	reconcile.Handle(core.Pods().Informer(), func(p *v1.Pod) { e.podChanged(nil, p) }, func(old, p *v1.Pod) { e.podChanged(old, p) }, func(p *v1.Pod) { e.podChanged(nil, p) })
	return e
}

// run calls write with each Service that has a selector, and its pods.
func (e *controller) run(c controllers.Context, write func(context.Context, *v1.Service, []*v1.Pod) error,
	gone func(context.Context, string) error, reads ...cache.SharedIndexInformer) reconcile.Run {
	core := c.Informers.Core().V1()
	return reconcile.Loop[*v1.Service]{
		Queue: e.queue, Workers: c.Workers(2), For: core.Services().Informer(), Reads: append(reads, core.Pods().Informer()), Gone: gone,
		Reconcile: func(ctx context.Context, svc *v1.Service) (reconcile.Result, error) {
			if svc.Spec.Selector == nil || svc.Spec.Type == v1.ServiceTypeExternalName {
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
	if old != nil && labels.Equals(old.Labels, p.Labels) && slices.Equal(old.Status.PodIPs, p.Status.PodIPs) && old.Status.PodIP == p.Status.PodIP && old.Status.Phase == p.Status.Phase &&
		ready(old) == ready(p) && (old.DeletionTimestamp == nil) == (p.DeletionTimestamp == nil) && old.Spec.NodeName == p.Spec.NodeName {
		return
	}
	all, err := e.services.Services(p.Namespace).List(labels.Everything())
	if err != nil {
		return
	}
	for _, s := range all {
		if s.Spec.Selector == nil {
			continue
		}
		sel := labels.SelectorFromSet(s.Spec.Selector)
		if sel.Matches(labels.Set(p.Labels)) || old != nil && sel.Matches(labels.Set(old.Labels)) {
			e.queue.Add(reconcile.Key(s))
		}
	}
}

// sliceController keeps EndpointSlices.
type sliceController struct {
	controller
	nodes  corelisters.NodeLister
	slices discoverylisters.EndpointSliceLister
	// seen knows what was written, so that a cache that is behind is noticed.
	seen *util.EndpointSliceTracker
	// zones has what the nodes of each zone can do.
	zones *topologycache.TopologyCache
	// most is how many endpoints a slice holds at most.
	most int
}

// New makes the controller of EndpointSlices.
func New(c controllers.Context) (reconcile.Run, error) {
	nodes, informer := c.Informers.Core().V1().Nodes(), c.Informers.Discovery().V1().EndpointSlices()
	e := &sliceController{controller: newController(c, "endpoint_slice"), nodes: nodes.Lister(), slices: informer.Lister(),
		seen: util.NewEndpointSliceTracker(), zones: topologycache.NewTopologyCache(), most: c.Tuned().MaxEndpointsPerSlice}
	again := func(s *discoveryv1.EndpointSlice) {
		e.queue.Add(s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName])
	}
	ours := func(s *discoveryv1.EndpointSlice) bool { return s.Labels[discoveryv1.LabelManagedBy] == managedBy }
	reconcile.Handle(informer.Informer(), func(s *discoveryv1.EndpointSlice) {
		if ours(s) && e.seen.ShouldSync(s) {
			again(s)
		}
	}, func(old, s *discoveryv1.EndpointSlice) {
		switch was, is := old.Labels[discoveryv1.LabelServiceName], s.Labels[discoveryv1.LabelServiceName]; {
		case was != is:
			again(old)
			again(s)
		case ours(old) != ours(s), ours(s) && e.seen.ShouldSync(s):
			again(s)
		}
	}, func(s *discoveryv1.EndpointSlice) {
		// Its deletion by this controller is expected, any other is mended.
		if ours(s) && e.seen.Has(s) && !e.seen.HandleDeletion(s) {
			again(s)
		}
	})
	topology := c.Queue("endpoint_slice_topology")
	look := func(*v1.Node) { topology.Add("") }
	reconcile.Handle(nodes.Informer(), look, func(old, n *v1.Node) {
		if nodeReady(old) != nodeReady(n) || !labels.Equals(old.Labels, n.Labels) || !old.Status.Allocatable.Cpu().Equal(*n.Status.Allocatable.Cpu()) {
			look(n)
		}
	}, look)
	distribution := reconcile.Keys{Queue: topology, Reads: []cache.SharedIndexInformer{nodes.Informer()}, Reconcile: e.distribute}
	return reconcile.Together(distribution.Run, e.run(c, e.sync, e.gone, nodes.Informer(), informer.Informer())), nil
}

func nodeReady(n *v1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue })
}

// distribute notes what the nodes of each zone can do, and queues the Services whose
// hints have become unfair by it.
func (e *sliceController) distribute(ctx context.Context, _ string) (reconcile.Result, error) {
	nodes, err := e.nodes.List(labels.Everything())
	if err != nil {
		return reconcile.Result{}, err
	}
	e.zones.SetNodes(klog.FromContext(ctx), nodes)
	for _, key := range e.zones.GetOverloadedServices() {
		e.queue.Add(key)
	}
	return reconcile.Result{}, nil
}

// gone forgets a Service; the garbage collector takes its slices.
func (e *sliceController) gone(_ context.Context, key string) error {
	namespace, name := reconcile.SplitKey(key)
	e.triggers.DeleteService(namespace, name)
	e.seen.DeleteService(namespace, name)
	return nil
}

// sync makes a Service's slices what they should be.
func (e *sliceController) sync(ctx context.Context, svc *v1.Service, pods []*v1.Pod) error {
	existing, err := e.slices.EndpointSlices(svc.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: svc.Name, discoveryv1.LabelManagedBy: managedBy}))
	if err != nil {
		return err
	}
	existing = slices.DeleteFunc(slices.Clone(existing), func(s *discoveryv1.EndpointSlice) bool { return s.DeletionTimestamp != nil })
	if e.seen.StaleSlices(svc, existing) {
		return errors.New("EndpointSlice informer cache is out of date")
	}
	slices.SortFunc(existing, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	// The tracker is updated even if nothing is written.
	trigger := e.triggers.ComputeEndpointLastChangeTriggerTime(svc.Namespace, svc, pods)
	wanted := families(svc)
	var errs []error
	var others []*discoveryv1.EndpointSlice // of families that the Service no longer has
	of := map[discoveryv1.AddressType][]*discoveryv1.EndpointSlice{}
	for _, s := range existing {
		if !slices.Contains(wanted, v1.IPFamily(s.AddressType)) {
			e.zones.RemoveHints(reconcile.Key(svc), s.AddressType)
			others = append(others, s)
			continue
		}
		of[s.AddressType] = append(of[s.AddressType], s)
	}
	served := targets(svc, pods)
	for _, family := range wanted {
		addressType := discoveryv1.AddressType(family)
		groups, err := e.groups(svc, served, family)
		errs = append(errs, err)
		p := newPlan(svc, addressType, groups, of[addressType], e.most)
		for _, event := range p.hint(klog.FromContext(ctx), svc, addressType, e.zones) {
			e.recorder.Event(svc, event.EventType, event.Reason, event.Message)
		}
		p.reuse(svc)
		errs = append(errs, e.write(ctx, svc, &p, trigger))
	}
	return errors.Join(append(errs, e.write(ctx, svc, &plan{delete: others}, trigger))...)
}

// groups returns the endpoints that a Service wants of a family, by their ports. A pod
// whose node is not there is left out, with an error: the node may be yet to be seen.
func (e *sliceController) groups(svc *v1.Service, served []serving, family v1.IPFamily) (groups []*group, err error) {
	byPorts := map[string]*group{}
	var last *group // most pods have the ports of the one before
	var ports []int32
	var missing []error
	for _, s := range served {
		addresses := addressesOf(s.pod, family)
		if len(addresses) == 0 {
			continue
		}
		node, err := e.nodes.Get(s.pod.Spec.NodeName)
		if err != nil && !svc.Spec.PublishNotReadyAddresses {
			missing = append(missing, fmt.Errorf("skipping Pod %s for Service %s/%s: Node %s Not Found", s.pod.Name, svc.Namespace, svc.Name, s.pod.Spec.NodeName))
			continue
		}
		if last == nil || !slices.Equal(ports, s.ports) {
			k := key(s.ports)
			if last, ports = byPorts[k], s.ports; last == nil {
				last = &group{ports: endpointPorts(svc, s.ports)}
				byPorts[k], groups = last, append(groups, last)
			}
		}
		last.endpoints = append(last.endpoints, endpoint(svc, s.pod, node, addresses))
	}
	return groups, errors.Join(missing...)
}

func endpointPorts(svc *v1.Service, numbers []int32) []discoveryv1.EndpointPort {
	out := []discoveryv1.EndpointPort{}
	for i, n := range numbers {
		if p := &svc.Spec.Ports[i]; n != 0 {
			out = append(out, discoveryv1.EndpointPort{Name: ptr.To(p.Name), Port: ptr.To(n), Protocol: ptr.To(p.Protocol), AppProtocol: p.AppProtocol})
		}
	}
	return out
}

func endpoint(svc *v1.Service, p *v1.Pod, node *v1.Node, addresses []string) discoveryv1.Endpoint {
	serving, terminating := ready(p), p.DeletionTimestamp != nil
	e := discoveryv1.Endpoint{
		Addresses:  addresses,
		Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(svc.Spec.PublishNotReadyAddresses || serving && !terminating), Serving: &serving, Terminating: &terminating},
		TargetRef:  ref(p), Hostname: hostname(svc, p),
	}
	if p.Spec.NodeName != "" {
		e.NodeName = &p.Spec.NodeName
	}
	if node != nil {
		if zone := node.Labels[v1.LabelTopologyZone]; zone != "" {
			e.Zone = &zone
		}
	}
	return e
}

// write writes what is planned.
func (e *sliceController) write(ctx context.Context, svc *v1.Service, p *plan, trigger time.Time) error {
	client := e.client.DiscoveryV1().EndpointSlices(svc.Namespace)
	if svc.DeletionTimestamp == nil { // else the garbage collector is at work
		for _, s := range p.create {
			triggered(&s.ObjectMeta, trigger)
			made, err := client.Create(ctx, s, metav1.CreateOptions{})
			if apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("failed to create EndpointSlice for Service %s/%s: %w", svc.Namespace, svc.Name, err)
			}
			e.seen.Update(made)
		}
	}
	for _, s := range p.update {
		triggered(&s.ObjectMeta, trigger)
		updated, err := client.Update(ctx, s, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("failed to update %s EndpointSlice for Service %s/%s: %w", s.Name, svc.Namespace, svc.Name, err)
		}
		e.seen.Update(updated)
	}
	for _, s := range p.delete {
		if err := client.Delete(ctx, s.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("failed to delete %s EndpointSlice for Service %s/%s: %w", s.Name, svc.Namespace, svc.Name, err)
		}
		e.seen.ExpectDeletion(s)
	}
	return nil
}

// triggered notes when the change happened that a write is made for, where that is
// known.
func triggered(m *metav1.ObjectMeta, at time.Time) {
	if at.IsZero() {
		delete(m.Annotations, v1.EndpointsLastChangeTriggerTime)
		return
	}
	metav1.SetMetaDataAnnotation(m, v1.EndpointsLastChangeTriggerTime, at.UTC().Format(time.RFC3339Nano))
}
