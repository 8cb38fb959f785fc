package apiservice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	client "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver/aggregation"
	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

// recheck is how often a server that other servers rely on is tried, upstream's.
const recheck = 30 * time.Second

// Options of the controller.
type Options struct {
	Client    client.APIServicesGetter
	Informers informers.SharedInformerFactory
	// Registry passes requests on to the servers.
	Registry  *aggregation.Registry
	Catalogue *catalogue.Catalogue
	Clock     clock.WithTicker
}

type controller struct {
	Options
	queue       reconcile.Queue
	apiServices cache.SharedIndexInformer
	services    corelisters.ServiceLister
	slices      discoverylisters.EndpointSliceLister
}

// New makes the controller.
func New(o Options) reconcile.Run {
	c := &controller{
		Options:     o,
		queue:       reconcile.NewQueue("APIServiceController", o.Clock),
		apiServices: o.Informers.InformerFor(&apiregistration.APIService{}, nil),
		services:    o.Informers.Core().V1().Services().Lister(),
		slices:      o.Informers.Discovery().V1().EndpointSlices().Lister(),
	}
	services, endpoints := o.Informers.Core().V1().Services().Informer(), o.Informers.Discovery().V1().EndpointSlices().Informer()
	reconcile.Handle(c.apiServices, reconcile.Enqueue[*apiregistration.APIService](c.queue), nil, nil)
	reconcile.Handle(services, func(s *v1.Service) { c.ofService(s.Namespace, s.Name) }, nil, nil)
	reconcile.Handle(endpoints, func(s *discoveryv1.EndpointSlice) { c.ofService(s.Namespace, s.Labels[discoveryv1.LabelServiceName]) }, nil, nil)
	loop := reconcile.Loop[*apiregistration.APIService]{
		Queue: c.queue, Workers: 4, For: c.apiServices, Reads: []cache.SharedIndexInformer{services, endpoints},
		Reconcile: c.reconcile, Gone: c.gone,
	}
	return reconcile.Together(c.register, loop.Run)
}

// ofService queues the APIServices whose server is behind the Service.
func (c *controller) ofService(namespace, name string) {
	for _, obj := range c.apiServices.GetStore().List() {
		a := obj.(*apiregistration.APIService)
		if s := a.Spec.Service; s != nil && s.Namespace == namespace && s.Name == name {
			c.queue.Add(a.Name)
		}
	}
}

// register queues each group version that is served here, and those that have
// an APIService; then those of each group of which other versions are served.
func (c *controller) register(ctx context.Context) {
	if !reconcile.WaitFor(ctx, c.apiServices) {
		return
	}
	for _, key := range c.apiServices.GetStore().ListKeys() {
		c.queue.Add(key)
	}
	var last map[string][]string
	for {
		changed := c.Catalogue.Changed()
		now := map[string][]string{}
		for _, g := range c.Catalogue.Groups() {
			now[g.Name] = g.Versions
			if slices.Equal(last[g.Name], g.Versions) {
				delete(last, g.Name)
				continue
			}
			for _, v := range g.Versions {
				c.queue.Add(v + "." + g.Name)
			}
		}
		for name, versions := range last { // the group, or some of its versions, may have gone
			for _, v := range versions {
				c.queue.Add(v + "." + name)
			}
		}
		last = now
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// gone withdraws an APIService that is not there, and makes that of a group
// version that is served here.
func (c *controller) gone(ctx context.Context, name string) error {
	c.Registry.Remove(helper.APIServiceNameToGroupVersion(name))
	want := c.local(name)
	if want == nil {
		return nil
	}
	_, err := c.Client.APIServices().Create(ctx, want, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (c *controller) reconcile(ctx context.Context, a *apiregistration.APIService) (reconcile.Result, error) {
	if err := c.keep(ctx, a); err != nil || a.Spec.Service == nil || a.DeletionTimestamp != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: recheck}, c.check(ctx, a)
}

// keep has the APIService's requests passed on, and keeps it as it should be
// where it is this server's.
func (c *controller) keep(ctx context.Context, a *apiregistration.APIService) error {
	c.Registry.Set(a)
	want := c.local(a.Name)
	switch {
	case a.DeletionTimestamp != nil:
		return nil
	case a.Labels[managed] != "" && want == nil && a.Spec.Service == nil:
		return ignoreGone(c.Client.APIServices().Delete(ctx, a.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &a.UID}}))
	case a.Labels[managed] == "true" && !equality.Semantic.DeepEqual(a.Spec, want.Spec):
		next := a.DeepCopy()
		next.Spec = want.Spec
		_, err := c.Client.APIServices().Update(ctx, next, metav1.UpdateOptions{})
		return err
	case a.Spec.Service == nil:
		return c.update(ctx, a, helper.NewLocalAvailableAPIServiceCondition())
	}
	return nil
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// managed is the label of the APIServices that this controller makes.
const managed = "kube-aggregator.kubernetes.io/automanaged"

// local returns the APIService of a group version that is served here, nil for
// any other name.
func (c *controller) local(name string) *apiregistration.APIService {
	gv := helper.APIServiceNameToGroupVersion(name)
	for _, g := range c.Catalogue.Groups() {
		if g.Name != gv.Group || !slices.Contains(g.Versions, gv.Version) {
			continue
		}
		// Built-in groups are registered once; a custom one for as long as its
		// definition is there.
		when, group, version := "true", int32(1000), int32(100)
		if catalogue.IsBuiltin(g.Name) {
			when, group = "onstart", int32(min(g.Priority, 18000))
			// The preferred version has the greatest priority.
			version = int32(15 * (len(g.Versions) - slices.Index(g.Versions, gv.Version)))
		}
		return &apiregistration.APIService{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{managed: when}},
			Spec:       apiregistration.APIServiceSpec{Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: group, VersionPriority: version},
		}
	}
	return nil
}

// check finds whether a's server can be reached, says so in its status, and
// makes the registry read its discovery.
func (c *controller) check(ctx context.Context, a *apiregistration.APIService) error {
	condition := apiregistration.APIServiceCondition{Type: apiregistration.Available, Status: apiregistration.ConditionFalse}
	condition.Reason, condition.Message = c.missing(a)
	var failed, unread error
	if condition.Reason == "" {
		if failed = c.Registry.Check(ctx, a); failed != nil {
			condition.Reason, condition.Message = "FailedDiscoveryCheck", failed.Error()
		} else {
			condition.Status, condition.Reason, condition.Message = apiregistration.ConditionTrue, "Passed", "all checks passed"
			// Before the condition is written, so that a client that waits for
			// it finds the server in discovery. A server with a bad document is
			// there all the same.
			unread = c.Registry.Refresh(ctx, a)
		}
	}
	return errors.Join(c.update(ctx, a, condition), failed, unread)
}

// missing returns the reason and message of a server that cannot be asked yet, ""
// if it can.
func (c *controller) missing(a *apiregistration.APIService) (reason, message string) {
	ref := a.Spec.Service
	s, err := c.services.Services(ref.Namespace).Get(ref.Name)
	if err != nil {
		return "ServiceNotFound", fmt.Sprintf("service/%s in %q is not present", ref.Name, ref.Namespace)
	}
	if s.Spec.Type != v1.ServiceTypeClusterIP {
		return "", ""
	}
	i := slices.IndexFunc(s.Spec.Ports, func(p v1.ServicePort) bool { return p.Port == *ref.Port })
	if i < 0 {
		return "ServicePortError", fmt.Sprintf("service/%s in %q is not listening on port %d", ref.Name, ref.Namespace, *ref.Port)
	}
	endpoints, err := c.slices.EndpointSlices(ref.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: ref.Name}))
	if err != nil || len(endpoints) == 0 {
		return "EndpointsNotFound", fmt.Sprintf("cannot find endpointslices for service/%s in %q", ref.Name, ref.Namespace)
	}
	port := s.Spec.Ports[i].Name
	if !slices.ContainsFunc(endpoints, func(s *discoveryv1.EndpointSlice) bool { return serves(s, port) }) {
		return "MissingEndpoints", fmt.Sprintf("endpointslices for service/%s in %q have no addresses with port name %q", ref.Name, ref.Namespace, port)
	}
	return "", ""
}

// serves reports whether s has a ready endpoint with the port of that name.
func serves(s *discoveryv1.EndpointSlice, port string) bool {
	return slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }) &&
		slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return p.Name != nil && *p.Name == port && p.Port != nil })
}

func (c *controller) update(ctx context.Context, a *apiregistration.APIService, condition apiregistration.APIServiceCondition) error {
	next := a.DeepCopy()
	condition.LastTransitionTime = metav1.Time{Time: c.Clock.Now()}
	helper.SetAPIServiceCondition(next, condition)
	if equality.Semantic.DeepEqual(a.Status, next.Status) {
		return nil
	}
	// Before the condition is written: requests of clients that wait for it are
	// passed on.
	c.Registry.Set(next)
	now, err := c.Client.APIServices().UpdateStatus(trace.WithCause(ctx, a), next, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	c.Registry.Set(now) // not undone by what the informer had before
	return nil
}
