package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/store"
)

// serviceObjects implements serviceip.Objects: it reads in the store, so that a range
// counts at once, and writes as the API server's own client.
type serviceObjects struct {
	c      *Cluster
	client func() kubernetes.Interface
}

func newServiceObjects(c *Cluster) *serviceObjects {
	return &serviceObjects{c, sync.OnceValue(func() kubernetes.Interface { return c.Client(apiServer) })}
}

func listOf[T any](ctx context.Context, c *Cluster, group, resource string) ([]T, error) {
	res, err := c.Store.List(ctx, c.row(group, "v1", resource).Prefix(""), store.ListOptions{})
	if err != nil {
		return nil, err
	}
	out := make([]T, len(res.Entries))
	for i, e := range res.Entries {
		out[i] = e.Object().(T)
	}
	return out, nil
}

// CIDRs implements serviceip.Objects.
func (o *serviceObjects) CIDRs(ctx context.Context) ([]*networkingv1.ServiceCIDR, error) {
	return listOf[*networkingv1.ServiceCIDR](ctx, o.c, networkingv1.GroupName, "servicecidrs")
}

// Addresses implements serviceip.Objects.
func (o *serviceObjects) Addresses(ctx context.Context) ([]*networkingv1.IPAddress, error) {
	return listOf[*networkingv1.IPAddress](ctx, o.c, networkingv1.GroupName, "ipaddresses")
}

// Address implements serviceip.Objects.
func (o *serviceObjects) Address(ctx context.Context, ip netip.Addr) (*networkingv1.IPAddress, error) {
	e, err := o.c.Store.Get(ctx, o.c.row(networkingv1.GroupName, "v1", "ipaddresses").Key("", ip.String()))
	if err != nil || e == nil {
		return nil, err
	}
	return e.Object().(*networkingv1.IPAddress), nil
}

// Create implements serviceip.Objects.
func (o *serviceObjects) Create(ctx context.Context, a *networkingv1.IPAddress) error {
	_, err := o.client().NetworkingV1().IPAddresses().Create(ctx, a, metav1.CreateOptions{})
	return err
}

// Delete implements serviceip.Objects.
func (o *serviceObjects) Delete(ctx context.Context, a *networkingv1.IPAddress) error {
	err := o.client().NetworkingV1().IPAddresses().Delete(ctx, a.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(a.UID)}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// repairPeriod is how often addresses of Services are compared with the Services, as
// upstream does.
const repairPeriod = 3 * time.Minute

// defaultCIDR is the name of the ServiceCIDR of the server's own flags.
const defaultCIDR = "kubernetes"

// startServiceAddresses makes the default ServiceCIDR and repairs what a former server
// left; it does so again now and then, when an address of a Service is deleted, and
// soon where it fails: a webhook may be in the way that is yet to start.
func (c *Cluster) startServiceAddresses() error {
	tell := c.teller("ipallocator-repair-controller")
	again := make(chan struct{}, 1)
	look := func() time.Duration {
		err := c.ensureDefaultCIDR(tell)
		if err == nil {
			err = c.allocator.Repair(c.ctx, c.listServices, c.Clock.Now(), tell)
		}
		if err != nil && c.ctx.Err() == nil {
			klog.FromContext(c.ctx).Error(err, "Keeping the addresses of Services; trying again")
			return retryPeriod
		}
		return repairPeriod
	}
	w, err := c.Store.Watch(c.row(networkingv1.GroupName, "v1", "ipaddresses").Prefix(""), store.WatchOptions{})
	if err != nil {
		return err
	}
	wait := look()
	c.wg.Go(func() {
		defer w.Stop()
		for {
			events, err := w.Next(c.ctx)
			if err != nil {
				return // what is missed is found in time
			}
			if slices.ContainsFunc(events, func(ev store.Event) bool { return ev.Type == store.Delete && c.stillHeld(ev.Entry) }) {
				select {
				case again <- struct{}{}:
				default:
				}
			}
		}
	})
	c.wg.Go(func() {
		for {
			t := c.Clock.NewTimer(wait)
			select {
			case <-t.C():
			case <-again:
				t.Stop()
			case <-c.ctx.Done():
				t.Stop()
				return
			}
			wait = look()
		}
	})
	return nil
}

// stillHeld reports whether the Service of a deleted IPAddress has that address.
func (c *Cluster) stillHeld(e *store.Entry) bool {
	a, ok := e.Object().(*networkingv1.IPAddress)
	if !ok || a.Spec.ParentRef == nil || a.Spec.ParentRef.Resource != "services" {
		return false
	}
	s, err := c.Store.Get(c.ctx, c.row("", "v1", "services").Key(a.Spec.ParentRef.Namespace, a.Spec.ParentRef.Name))
	return err == nil && s != nil && slices.Contains(s.Object().(*v1.Service).Spec.ClusterIPs, a.Name)
}

// ensureDefaultCIDR makes the ServiceCIDR of the flags. One that there is stays as it
// is: its range cannot be changed.
func (c *Cluster) ensureDefaultCIDR(tell func(runtime.Object, string, string)) error {
	ctx := c.ctx
	client := c.Client(apiServer).NetworkingV1().ServiceCIDRs()
	own := []string{c.ServiceCIDR.Masked().String()}
	cidr, err := client.Get(ctx, defaultCIDR, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		cidr, err = client.Create(ctx, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: defaultCIDR}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: own}}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // another server was faster
			cidr, err = client.Get(ctx, defaultCIDR, metav1.GetOptions{})
		}
	}
	if err != nil {
		return err
	}
	if !slices.Equal(cidr.Spec.CIDRs, own) {
		klog.FromContext(ctx).Info("The default ServiceCIDR is another than --service-cidr, and stays: services have addresses of it and of other ServiceCIDRs",
			"serviceCIDR", cidr.Spec.CIDRs, "flag", own)
		tell(cidr, "KubernetesDefaultServiceCIDRInconsistent", fmt.Sprintf("The default ServiceCIDR %v does not match the flag configurations %s", cidr.Spec.CIDRs, own))
	}
	if cidr.DeletionTimestamp != nil || slices.ContainsFunc(cidr.Status.Conditions, func(c metav1.Condition) bool { return c.Type == networkingv1.ServiceCIDRConditionReady }) {
		return nil
	}
	cidr.Status.Conditions = append(cidr.Status.Conditions, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
		Message: "Kubernetes default Service CIDR is ready", LastTransitionTime: metav1.Now()})
	_, err = client.UpdateStatus(ctx, cidr, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // somebody else looks after it
	}
	return err
}

// teller gives a function that records warnings as component, with a recorder that is
// made when there is something to tell.
func (c *Cluster) teller(component string) func(about runtime.Object, reason, message string) {
	recorder := sync.OnceValue(func() record.EventRecorder { return c.Recorder(c.Client(apiServer), component, "") })
	return func(about runtime.Object, reason, message string) {
		recorder().Event(about, v1.EventTypeWarning, reason, message)
	}
}
