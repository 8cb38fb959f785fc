package endpointslicemirroring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// managedBy marks the slices of this controller; upstream's name.
const managedBy = "endpointslicemirroring-controller.k8s.io"

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	queue    reconcile.Queue // of Endpoints, whose Service has the same key
}

// New makes the controller that mirrors Endpoints.
func New(c controllers.Context) (reconcile.Run, error) {
	core, slicesInf := c.Informers.Core().V1(), c.Informers.Discovery().V1().EndpointSlices()
	m := &controller{client: c.Client(), recorder: c.Recorder(), services: core.Services().Lister(), slices: slicesInf.Lister(), queue: c.Queue("endpoint_slice_mirroring")}
	reconcile.Handle(core.Endpoints().Informer(), reconcile.Enqueue[*v1.Endpoints](m.queue), func(old, cur *v1.Endpoints) {
		if wanted(old) || wanted(cur) {
			m.queue.Add(reconcile.Key(cur))
		}
	}, nil)
	reconcile.Handle(core.Services().Informer(), reconcile.Enqueue[*v1.Service](m.queue), func(old, cur *v1.Service) {
		if selects(old) != selects(cur) {
			m.queue.Add(reconcile.Key(cur))
		}
	}, nil)
	changed := func(s *discoveryv1.EndpointSlice) {
		if s.Labels[discoveryv1.LabelManagedBy] == managedBy {
			m.queue.Add(s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName])
		}
	}
	reconcile.Handle(slicesInf.Informer(), changed, func(old, cur *discoveryv1.EndpointSlice) {
		changed(old) // its labels may have been others
		changed(cur)
	}, nil)
	return reconcile.Loop[*v1.Endpoints]{
		Queue: m.queue, Workers: c.Workers(5), For: core.Endpoints().Informer(), Reads: []cache.SharedIndexInformer{core.Services().Informer(), slicesInf.Informer()},
		Reconcile: m.reconcile,
		Gone: func(ctx context.Context, key string) error {
			namespace, name := reconcile.SplitKey(key)
			return m.unmirror(ctx, namespace, name)
		},
	}.Run, nil
}

// selects reports whether the Service has a selector, and so another
// controller's slices.
func selects(s *v1.Service) bool { return len(s.Spec.Selector) > 0 }

// wanted reports whether the Endpoints are to be mirrored if their Service has
// no selector: not those that say no, nor the locks of leader elections.
func wanted(e *v1.Endpoints) bool {
	_, lock := e.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]
	return !lock && e.Labels[discoveryv1.LabelSkipMirror] != "true"
}

func (m *controller) reconcile(ctx context.Context, e *v1.Endpoints) (reconcile.Result, error) {
	svc, err := m.services.Services(e.Namespace).Get(e.Name)
	switch {
	case apierrors.IsNotFound(err), err == nil && (selects(svc) || !wanted(e)):
		return reconcile.Result{}, m.unmirror(ctx, e.Namespace, e.Name)
	case err != nil:
		return reconcile.Result{}, err
	}
	want, left := mirror(e)
	if left.invalid > 0 {
		m.recorder.Eventf(e, v1.EventTypeWarning, "InvalidIPAddress", "Skipped %d invalid IP addresses when mirroring to EndpointSlices", left.invalid)
	}
	if left.excess > 0 {
		m.recorder.Eventf(e, v1.EventTypeWarning, "TooManyAddressesToMirror",
			"A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", maxPerSubset, left.invalid+left.excess)
	}
	return reconcile.Result{}, m.write(ctx, e, want)
}

// mirrors returns the slices that mirror the named Endpoints, in the order of
// their names, without those that are being deleted.
func (m *controller) mirrors(namespace, name string) ([]*discoveryv1.EndpointSlice, error) {
	all, err := m.slices.EndpointSlices(namespace).List(selector(name))
	return living(all), err
}

// stored is mirrors, read from the server.
func (m *controller) stored(ctx context.Context, namespace, name string) ([]*discoveryv1.EndpointSlice, error) {
	list, err := m.client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector(name).String()})
	if err != nil {
		return nil, err
	}
	var all []*discoveryv1.EndpointSlice
	for i := range list.Items {
		all = append(all, &list.Items[i])
	}
	return living(all), nil
}

func selector(service string) labels.Selector {
	return labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: managedBy})
}

func living(all []*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	all = slices.DeleteFunc(all, func(s *discoveryv1.EndpointSlice) bool { return s.DeletionTimestamp != nil })
	slices.SortFunc(all, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// unmirror deletes the slices that mirror the named Endpoints.
func (m *controller) unmirror(ctx context.Context, namespace, name string) error {
	have, err := m.mirrors(namespace, name)
	if err != nil {
		return err
	}
	return m.delete(ctx, have)
}

// delete deletes the slices, and those that have gone or come anew it leaves.
func (m *controller) delete(ctx context.Context, have []*discoveryv1.EndpointSlice) error {
	var errs []error
	for _, s := range have {
		err := m.client.DiscoveryV1().EndpointSlices(s.Namespace).Delete(ctx, s.Name, *metav1.NewPreconditionDeleteOptions(string(s.UID)))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("failed to delete %s EndpointSlice for Endpoints %s/%s: %w", s.Name, s.Namespace, s.Labels[discoveryv1.LabelServiceName], err))
		}
	}
	return errors.Join(errs...)
}

// write makes the mirrors of e what want says. A slice is made only where the
// server has none for it: the cache may not have seen the last one that was made.
func (m *controller) write(ctx context.Context, e *v1.Endpoints, want []*discoveryv1.EndpointSlice) error {
	have, err := m.mirrors(e.Namespace, e.Name)
	if err != nil {
		return err
	}
	old, rest := assign(want, have)
	if slices.Contains(old, nil) {
		if e.DeletionTimestamp != nil {
			return nil // they go with their owner
		}
		if have, err = m.stored(ctx, e.Namespace, e.Name); err != nil {
			return err
		}
		old, rest = assign(want, have)
	}
	client := m.client.DiscoveryV1().EndpointSlices(e.Namespace)
	for i, w := range want {
		if old[i] == nil {
			if _, err := client.Create(ctx, w, metav1.CreateOptions{}); apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
				return nil
			} else if err != nil {
				return fmt.Errorf("failed to create EndpointSlice for Endpoints %s/%s: %w", e.Namespace, e.Name, err)
			}
			continue
		}
		n := old[i].DeepCopy()
		n.Labels, n.Annotations, n.OwnerReferences, n.Endpoints = w.Labels, w.Annotations, w.OwnerReferences, w.Endpoints
		if portsKey(n.Ports) != portsKey(w.Ports) {
			n.Ports = w.Ports
		}
		if equality.Semantic.DeepEqual(n, old[i]) {
			continue
		}
		if _, err := client.Update(ctx, n, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("failed to update %s EndpointSlice for Endpoints %s/%s: %w", n.Name, e.Namespace, e.Name, err)
		}
	}
	return m.delete(ctx, rest)
}

// assign returns the slice that is to become each of want, nil where one is to be
// made, and those that are left over. A slice keeps its ports if it can; its
// address type it cannot change.
func assign(want, have []*discoveryv1.EndpointSlice) (old, rest []*discoveryv1.EndpointSlice) {
	old, rest = make([]*discoveryv1.EndpointSlice, len(want)), slices.Clone(have)
	for _, samePorts := range []bool{true, false} {
		for i, w := range want {
			if old[i] != nil {
				continue
			}
			at := slices.IndexFunc(rest, func(s *discoveryv1.EndpointSlice) bool {
				return s.AddressType == w.AddressType && (!samePorts || portsKey(s.Ports) == portsKey(w.Ports))
			})
			if at >= 0 {
				old[i] = rest[at]
				rest = slices.Delete(rest, at, at+1)
			}
		}
	}
	return old, rest
}
