package endpointslice

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// maxAddresses is how many addresses an Endpoints object holds.
	maxAddresses = 1000
	// endpointsManager is the value of the label of Endpoints that this controller
	// keeps, which are not mirrored to slices.
	endpointsManager = "endpoint-controller"
	labelManagedBy   = "endpoints.kubernetes.io/managed-by"
)

// endpointsController keeps Endpoints, the older form, of a Service's first family.
type endpointsController struct {
	controller
	endpoints corelisters.EndpointsLister
	writes    controllers.Writes
}

// NewEndpoints makes the controller of Endpoints objects.
func NewEndpoints(c controllers.Context) (reconcile.Run, error) {
	informer := c.Informers.Core().V1().Endpoints()
	e := &endpointsController{controller: newController(c, "endpoint"), endpoints: informer.Lister()}
	again := reconcile.Enqueue[*v1.Endpoints](e.queue)
	reconcile.HandleListed(informer.Informer(), func(o *v1.Endpoints, listed bool) {
		// Its Service may have gone while no controller ran.
		if _, lock := o.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]; listed && !lock {
			again(o)
		}
	}, func(_, _ *v1.Endpoints) {}, again)
	return e.run(c, e.sync, e.gone, informer.Informer()), nil
}

// gone deletes the Endpoints of a Service that is not there.
func (e *endpointsController) gone(ctx context.Context, key string) error {
	namespace, name := reconcile.SplitKey(key)
	e.triggers.DeleteService(namespace, name)
	e.writes.Forget(key)
	if err := e.client.CoreV1().Endpoints(namespace).Delete(ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

func (e *endpointsController) sync(ctx context.Context, svc *v1.Service, pods []*v1.Pod) error {
	trigger := e.triggers.ComputeEndpointLastChangeTriggerTime(svc.Namespace, svc, pods)
	subsets := subsetsOf(svc, targets(svc, pods))
	want := map[string]string{}
	maps.Copy(want, svc.Labels)
	want[labelManagedBy] = endpointsManager
	delete(want, v1.IsHeadlessService)
	if headless(svc) {
		want[v1.IsHeadlessService] = ""
	}
	cut := truncate(subsets)
	old, err := e.endpoints.Endpoints(svc.Namespace).Get(svc.Name)
	if apierrors.IsNotFound(err) {
		old, err = &v1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: svc.Name, Namespace: svc.Namespace}}, nil
	}
	if err != nil {
		return err
	}
	made := old.ResourceVersion == ""
	_, wasCut := old.Annotations[v1.EndpointsOverCapacity]
	if !made {
		if e.writes.Behind(old) {
			return fmt.Errorf("endpoints informer cache is out of date, resource version %s already processed for endpoints %s", old.ResourceVersion, reconcile.Key(svc))
		}
		if equality.Semantic.DeepEqual(old.Subsets, subsets) && maps.Equal(old.Labels, want) && cut == wasCut {
			return nil
		}
	}
	n := old.DeepCopy()
	n.Subsets, n.Labels = subsets, want
	triggered(&n.ObjectMeta, trigger)
	if cut {
		metav1.SetMetaDataAnnotation(&n.ObjectMeta, v1.EndpointsOverCapacity, "truncated")
	} else {
		delete(n.Annotations, v1.EndpointsOverCapacity)
	}
	client := e.client.CoreV1().Endpoints(svc.Namespace)
	if made {
		n, err = client.Create(ctx, n, metav1.CreateOptions{})
	} else {
		n, err = client.Update(ctx, n, metav1.UpdateOptions{})
	}
	switch {
	case err == nil:
		e.writes.Wrote(n)
	case made && apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause):
		return nil
	case made:
		e.recorder.Eventf(svc, v1.EventTypeWarning, "FailedToCreateEndpoint", "Failed to create endpoint for service %v/%v: %v", svc.Namespace, svc.Name, err)
	default:
		e.recorder.Eventf(svc, v1.EventTypeWarning, "FailedToUpdateEndpoint", "Failed to update endpoint %v/%v: %v", svc.Namespace, svc.Name, err)
	}
	return err
}

// subsetsOf groups the addresses of the Service's first family by their ports, in
// order.
func subsetsOf(svc *v1.Service, served []serving) []v1.EndpointSubset {
	groups := map[string]*v1.EndpointSubset{}
	family := families(svc)[0]
	for _, s := range served {
		addresses := addressesOf(s.pod, family)
		if len(addresses) == 0 || s.pod.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses {
			continue
		}
		g := groups[key(s.ports)]
		if g == nil {
			g = &v1.EndpointSubset{}
			for i, n := range s.ports {
				if p := &svc.Spec.Ports[i]; n != 0 {
					g.Ports = append(g.Ports, v1.EndpointPort{Name: p.Name, Port: n, Protocol: p.Protocol, AppProtocol: p.AppProtocol})
				}
			}
			if len(g.Ports) == 0 && len(svc.Spec.Ports) > 0 {
				continue // it has none of the named ports
			}
			groups[key(s.ports)] = g
		}
		a := v1.EndpointAddress{IP: addresses[0], TargetRef: ref(s.pod), NodeName: &s.pod.Spec.NodeName}
		if h := hostname(svc, s.pod); h != nil {
			a.Hostname = *h
		}
		if svc.Spec.PublishNotReadyAddresses || ready(s.pod) {
			g.Addresses = append(g.Addresses, a)
		} else {
			g.NotReadyAddresses = append(g.NotReadyAddresses, a)
		}
	}
	var out []v1.EndpointSubset
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		byAddress := func(a, b v1.EndpointAddress) int {
			return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(a.TargetRef.UID, b.TargetRef.UID))
		}
		slices.SortFunc(groups[k].Addresses, byAddress)
		slices.SortFunc(groups[k].NotReadyAddresses, byAddress)
		out = append(out, *groups[k])
	}
	return out
}

// truncate leaves maxAddresses in all, of each subset its share, ready ones first. It
// reports whether there were more.
func truncate(subsets []v1.EndpointSubset) bool {
	ready, others := 0, 0
	for i := range subsets {
		ready, others = ready+len(subsets[i].Addresses), others+len(subsets[i].NotReadyAddresses)
	}
	if ready+others <= maxAddresses {
		return false
	}
	room, total, ofReady := maxAddresses-ready, others, false
	if ready > maxAddresses {
		room, total, ofReady = maxAddresses, ready, true
	}
	left := room
	share := func(all []v1.EndpointAddress) []v1.EndpointAddress {
		n := min(len(all), left, int(math.Ceil(float64(len(all))/float64(total)*float64(room))))
		left -= n
		return all[:n]
	}
	for i := range subsets {
		if s := &subsets[i]; ofReady {
			s.Addresses, s.NotReadyAddresses = share(s.Addresses), nil
		} else {
			s.NotReadyAddresses = share(s.NotReadyAddresses)
		}
	}
	return true
}
