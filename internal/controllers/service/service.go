package service

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/network/index"
	"keelson.dev/keelson/internal/network/lb"
	"keelson.dev/keelson/internal/network/reserved"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// finalizer keeps a Service until its load balancer is gone.
	finalizer = "service.kubernetes.io/load-balancer-cleanup"
	// toBeDeleted is the taint of nodes that the cluster autoscaler is about to
	// delete.
	toBeDeleted = "ToBeDeletedByClusterAutoscaler"
)

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	queue    reconcile.Queue
	services corelisters.ServiceLister
	nodes    corelisters.NodeLister
	slices   cache.Indexer
	options  lb.Options

	// The rest is the one worker's.

	// balancers are by class; that of Services without one is "".
	balancers map[string]lb.Balancer
	// done are the Services that have their load balancer, as it was ensured last.
	done map[string]*ensured
	// refused holds the Services without a load balancer that may get one when
	// another Service changes.
	refused map[string]bool
}

// ensured is a Service, with the nodes that its load balancer led to then.
type ensured struct {
	service *v1.Service
	nodes   []string
}

// New makes the controller. Where load balancers are left to another implementation
// there is nothing to run.
func New(c controllers.Context) (reconcile.Run, error) {
	services, nodes, slices := c.Informers.Core().V1().Services(), c.Informers.Core().V1().Nodes(), c.Informers.Discovery().V1().EndpointSlices()
	if c.LoadBalancer == nil || c.LoadBalancer.Mode == lb.None {
		_, _, _ = services.Informer(), nodes.Informer(), slices.Informer()
		return nil, nil
	}
	if err := index.Slices(slices.Informer()); err != nil {
		return nil, err
	}
	s := &controller{client: c.Client(), recorder: c.Recorder(), queue: c.Queue("service"), services: services.Lister(), nodes: nodes.Lister(),
		slices: slices.Informer().GetIndexer(), options: *c.LoadBalancer, done: map[string]*ensured{}, refused: map[string]bool{}}
	reconcile.Handle(services.Informer(), reconcile.Enqueue[*v1.Service](s.queue), nil, nil)
	reconcile.Handle(nodes.Informer(), s.nodeAdded, s.nodeChanged, s.nodeAdded)
	reconcile.Handle(slices.Informer(), s.endpointsChanged, nil, nil)
	loop := reconcile.Loop[*v1.Service]{Queue: s.queue, For: services.Informer(), Reads: []cache.SharedIndexInformer{nodes.Informer(), slices.Informer()},
		Reconcile: s.reconcile, Gone: s.gone}
	return func(ctx context.Context) {
		// The addresses that Services have must be known before any is given.
		if !reconcile.WaitFor(ctx, services.Informer()) {
			s.queue.ShutDown()
			return
		}
		s.begin()
		loop.Run(ctx)
	}, nil
}

// begin makes the balancers.
func (c *controller) begin() {
	all, _ := c.services.List(labels.Everything()) // of a cache: there is no error
	// first is the class of Services that name none.
	first := lb.ClassNodes
	switch {
	case c.options.Mode == lb.Classes:
		first = ""
	case len(c.options.Addresses) > 0:
		first = lb.ClassPool
	}
	had := func(class string) (out []*v1.Service) {
		for _, s := range all {
			// One that wants none any more has it until it is removed.
			if (wants(s) || slices.Contains(s.Finalizers, finalizer)) && cmp.Or(classOf(s), first) == class {
				out = append(out, s)
			}
		}
		return out
	}
	c.balancers = map[string]lb.Balancer{
		lb.ClassNodes: lb.NewNodes(c.slices, had(lb.ClassNodes)),
		lb.ClassPool:  lb.NewPool(c.options.Addresses, c.slices, had(lb.ClassPool)),
	}
	if first != "" {
		c.balancers[""] = c.balancers[first]
	}
}

func classOf(s *v1.Service) string {
	if s.Spec.LoadBalancerClass == nil {
		return ""
	}
	return *s.Spec.LoadBalancerClass
}

// wants reports whether the Service is to have a load balancer.
func wants(s *v1.Service) bool {
	return s.Spec.Type == v1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil
}

// wake queues the Services that are to have a load balancer.
func (c *controller) wake(which func(*v1.Service) bool) {
	all, _ := c.services.List(labels.Everything())
	for _, s := range all {
		if wants(s) && which(s) {
			c.queue.Add(reconcile.Key(s))
		}
	}
}

func (c *controller) nodeAdded(*v1.Node) { c.wake(func(*v1.Service) bool { return true }) }

func (c *controller) nodeChanged(old, now *v1.Node) {
	if eligible(old) != eligible(now) || lb.Ready(old) != lb.Ready(now) || !slices.Equal(old.Status.Addresses, now.Status.Addresses) || old.Spec.ProviderID != now.Spec.ProviderID {
		c.nodeAdded(now)
	}
}

// endpointsChanged queues the Service whose load balancer leads only to nodes with
// endpoints.
func (c *controller) endpointsChanged(s *discoveryv1.EndpointSlice) {
	name := s.Labels[discoveryv1.LabelServiceName]
	if svc, err := c.services.Services(s.Namespace).Get(name); err == nil && wants(svc) && svc.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal {
		c.queue.Add(reconcile.Key(svc))
	}
}

// eligible reports whether load balancers may lead to the node.
func eligible(n *v1.Node) bool {
	_, excluded := n.Labels[v1.LabelNodeExcludeBalancers]
	return !excluded && n.DeletionTimestamp == nil && !slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == toBeDeleted })
}

func (c *controller) eligible() (out []*v1.Node, names []string) {
	all, _ := c.nodes.List(labels.Everything())
	slices.SortFunc(all, func(a, b *v1.Node) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range all {
		if eligible(n) {
			out, names = append(out, n), append(names, n.Name)
		}
	}
	return out, names
}

func (c *controller) reconcile(ctx context.Context, s *v1.Service) (reconcile.Result, error) {
	key := reconcile.Key(s)
	var err error
	switch {
	case wants(s):
		if b := c.balancers[classOf(s)]; b != nil {
			err = c.ensure(ctx, key, s, b)
		}
	case c.owns(key, s):
		err = c.remove(ctx, key, s)
	}
	if err != nil {
		c.recorder.Eventf(s, v1.EventTypeWarning, "SyncLoadBalancerFailed", "Error syncing load balancer: %v", err)
	}
	return reconcile.Result{}, err
}

// owns reports whether a Service that is to have no load balancer any more has one of
// this controller. With its type it loses its class: of Services without one in the
// mode Classes only those are its own that it has ensured, or has refused.
func (c *controller) owns(key string, s *v1.Service) bool {
	if c.balancers[classOf(s)] != nil {
		return slices.Contains(s.Finalizers, finalizer)
	}
	return classOf(s) == "" && (c.done[key] != nil || c.refused[key])
}

// ensure calls the balancer for the Service, its endpoints and the nodes.
func (c *controller) ensure(ctx context.Context, key string, s *v1.Service, b lb.Balancer) error {
	nodes, names := c.eligible()
	last := c.done[key]
	changed := last == nil || needsUpdate(last.service, s)
	if changed {
		delete(c.done, key)
		c.recorder.Event(s, v1.EventTypeNormal, "EnsuringLoadBalancer", "Ensuring load balancer")
		if !slices.Contains(s.Finalizers, finalizer) {
			if err := c.patch(ctx, s, func(m *v1.Service) { m.Finalizers = append(slices.Clone(s.Finalizers), finalizer) }); err != nil {
				return fmt.Errorf("failed to add load balancer cleanup finalizer: %w", err)
			}
		}
	}
	if len(nodes) == 0 && (changed || len(last.nodes) > 0) {
		c.recorder.Event(s, v1.EventTypeWarning, "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
	}
	has, err := b.Ensure(ctx, s, nodes)
	if err != nil {
		c.refused[key] = true
		delete(c.done, key)
		if len(s.Status.LoadBalancer.Ingress) > 0 {
			// It no longer has the load balancer of before the change.
			if err := c.patch(ctx, s, unbalanced); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("failed to update load balancer status: %w", err)
			}
		}
		return fmt.Errorf("failed to ensure load balancer: %w", err)
	}
	delete(c.refused, key)
	if changed {
		c.retry() // a port or an address that it had may be free
	}
	if err := c.patch(ctx, s, func(m *v1.Service) {
		m.Status.LoadBalancer = has.Status
		ofNodes(m, has.OfNodes)
		delete(m.Annotations, lb.AnnouncedBy) // a user's, unless the balancer sets it
		for k, v := range has.Annotations {
			if m.Annotations == nil {
				m.Annotations = map[string]string{}
			}
			m.Annotations[k] = v
		}
	}); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("failed to update load balancer status: %w", err)
	}
	switch {
	case changed:
		c.recorder.Event(s, v1.EventTypeNormal, "EnsuredLoadBalancer", "Ensured load balancer")
	case len(nodes) > 0 && !slices.Equal(last.nodes, names):
		c.recorder.Event(s, v1.EventTypeNormal, "UpdatedLoadBalancer", "Updated load balancer with new hosts")
	}
	c.done[key] = &ensured{s, names}
	return nil
}

// unbalanced takes the load balancer out of the status.
func unbalanced(s *v1.Service) {
	s.Status.LoadBalancer = v1.LoadBalancerStatus{}
	ofNodes(s, false)
}

// ofNodes notes in the status whether the Service's load balancer is the nodes themselves.
func ofNodes(s *v1.Service, is bool) {
	if is {
		meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{Type: reserved.OfNodes, Status: metav1.ConditionTrue, Reason: "NodesHaveAddresses", Message: "The addresses of the load balancer are the nodes' own"})
	} else {
		meta.RemoveStatusCondition(&s.Status.Conditions, reserved.OfNodes)
	}
}

// retry queues the refused Services after another Service has changed.
func (c *controller) retry() {
	for key := range c.refused {
		c.queue.Forget(key)
		c.queue.Add(key)
	}
}

// remove takes the Service's load balancer away, and then lets the Service go. Its
// address goes first: it may be another's as soon as the load balancer is gone.
func (c *controller) remove(ctx context.Context, key string, s *v1.Service) error {
	// The cache may be behind what was written of the Service a moment ago.
	live, err := c.client.CoreV1().Services(s.Namespace).Get(ctx, s.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && (live.UID != s.UID || wants(live)) {
		return nil // the informer brings what it is now
	}
	if err == nil && !slices.Contains(live.Finalizers, finalizer) {
		// It has been removed, or a cloud's controller manager has let the Service go.
		return c.release(ctx, key, s)
	}
	if err == nil {
		s, err = c.patched(ctx, live, unbalanced)
	}
	if err != nil {
		return fmt.Errorf("failed to update load balancer status: %w", err)
	}
	c.recorder.Event(s, v1.EventTypeNormal, "DeletingLoadBalancer", "Deleting load balancer")
	if err := c.release(ctx, key, s); err != nil {
		return err
	}
	err = c.patch(ctx, s, func(m *v1.Service) {
		m.Finalizers = slices.DeleteFunc(slices.Clone(s.Finalizers), func(f string) bool { return f == finalizer })
		delete(m.Annotations, lb.AnnouncedBy)
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("failed to remove load balancer cleanup finalizer: %w", err)
	}
	c.recorder.Event(s, v1.EventTypeNormal, "DeletedLoadBalancer", "Deleted load balancer")
	return nil
}

// release takes the Service's load balancer away, whatever its class was: it may be
// forgotten with its type.
func (c *controller) release(ctx context.Context, key string, s *v1.Service) error {
	for _, b := range c.balancers {
		if err := b.Delete(ctx, s); err != nil {
			return fmt.Errorf("failed to delete load balancer: %w", err)
		}
	}
	c.forget(key)
	return nil
}

func (c *controller) forget(key string) {
	delete(c.done, key)
	delete(c.refused, key)
	c.retry()
}

// gone is called for a Service that another has let go.
func (c *controller) gone(ctx context.Context, key string) error {
	namespace, name := reconcile.SplitKey(key)
	for _, b := range c.balancers {
		if err := b.Delete(ctx, &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}); err != nil {
			klog.FromContext(ctx).Error(err, "Deleting the load balancer of a Service that is gone", "service", key)
		}
	}
	c.forget(key)
	return nil
}

// patch writes what change changes of the Service's metadata and status, if it
// changes anything.
func (c *controller) patch(ctx context.Context, s *v1.Service, change func(*v1.Service)) error {
	_, err := c.patched(ctx, s, change)
	return err
}

// patched is patch, and returns the Service as it is then.
func (c *controller) patched(ctx context.Context, s *v1.Service, change func(*v1.Service)) (*v1.Service, error) {
	next := s.DeepCopy()
	change(next)
	metadata, status := map[string]any{}, map[string]any{}
	if !slices.Equal(s.Finalizers, next.Finalizers) {
		// The whole list, which must not have changed meanwhile.
		metadata["finalizers"], metadata["resourceVersion"] = next.Finalizers, s.ResourceVersion
	}
	if !maps.Equal(s.Annotations, next.Annotations) {
		changed := map[string]any{}
		for k, v := range next.Annotations {
			if s.Annotations[k] != v {
				changed[k] = v
			}
		}
		for k := range s.Annotations {
			if _, still := next.Annotations[k]; !still {
				changed[k] = nil
			}
		}
		metadata["annotations"] = changed
	}
	if !equality.Semantic.DeepEqual(s.Status.LoadBalancer, next.Status.LoadBalancer) {
		ingress := next.Status.LoadBalancer.Ingress
		if len(ingress) == 0 {
			ingress = nil // which takes away what there is
		}
		status["loadBalancer"] = map[string]any{"ingress": ingress}
	}
	if !equality.Semantic.DeepEqual(s.Status.Conditions, next.Status.Conditions) {
		status["conditions"] = next.Status.Conditions // the whole list: no other controller has conditions of Services
	}
	if len(metadata)+len(status) == 0 {
		return s, nil
	}
	metadata["uid"] = s.UID
	body := map[string]any{"metadata": metadata}
	if len(status) > 0 {
		body["status"] = status
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return c.client.CoreV1().Services(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, data, metav1.PatchOptions{}, "status")
}

// needsUpdate reports whether the Service asks for another load balancer than
// before.
func needsUpdate(old, now *v1.Service) bool {
	a, b := &old.Spec, &now.Spec
	return old.UID != now.UID || !slices.Equal(a.LoadBalancerSourceRanges, b.LoadBalancerSourceRanges) || !slices.EqualFunc(a.Ports, b.Ports, samePort) ||
		a.SessionAffinity != b.SessionAffinity || !equality.Semantic.DeepEqual(a.SessionAffinityConfig, b.SessionAffinityConfig) ||
		a.LoadBalancerIP != b.LoadBalancerIP || !slices.Equal(a.ExternalIPs, b.ExternalIPs) || !maps.Equal(foreign(old.Annotations), foreign(now.Annotations)) ||
		a.ExternalTrafficPolicy != b.ExternalTrafficPolicy || a.HealthCheckNodePort != b.HealthCheckNodePort || len(a.IPFamilies) != len(b.IPFamilies)
}

func samePort(a, b v1.ServicePort) bool {
	return a.Name == b.Name && a.Protocol == b.Protocol && a.Port == b.Port && a.NodePort == b.NodePort
}

// foreign returns the annotations that are not the controller's own.
func foreign(all map[string]string) map[string]string {
	out := maps.Clone(all)
	delete(out, lb.AnnouncedBy)
	return out
}
