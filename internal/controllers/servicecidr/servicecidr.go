package servicecidr

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	v1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// finalizer holds a ServiceCIDR back.
	finalizer = "networking.k8s.io/service-cidr-finalizer"
	// quiet is how long after its deletion a ServiceCIDR is looked at again: until
	// then an address of it may still be on its way.
	quiet = 10 * time.Second
)

type controller struct {
	client    kubernetes.Interface
	clock     clock.PassiveClock
	cidrs     listers.ServiceCIDRLister
	addresses listers.IPAddressLister
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	networking := c.Informers.Networking().V1()
	cidrs, addresses := networking.ServiceCIDRs(), networking.IPAddresses()
	s := &controller{client: c.Client(), clock: c.Clock, cidrs: cidrs.Lister(), addresses: addresses.Lister()}
	queue := c.Queue("servicecidrs")
	// A change of one range may let others go that overlap with it.
	overlapping := func(of *v1.ServiceCIDR) {
		queue.Add(of.Name)
		all, _ := s.cidrs.List(labels.Everything())
		for _, other := range all {
			if other.DeletionTimestamp != nil && overlap(other, of) {
				queue.Add(other.Name)
			}
		}
	}
	reconcile.Handle(cidrs.Informer(), overlapping, func(_, cur *v1.ServiceCIDR) { overlapping(cur) }, overlapping)
	reconcile.Handle(addresses.Informer(), nil, nil, func(a *v1.IPAddress) {
		all, _ := s.cidrs.List(labels.Everything())
		for _, c := range all {
			if ip, err := netip.ParseAddr(a.Name); err == nil && c.DeletionTimestamp != nil && contains(c, ip) {
				queue.Add(c.Name)
			}
		}
	})
	return reconcile.Loop[*v1.ServiceCIDR]{
		Queue: queue, For: cidrs.Informer(), Reads: []cache.SharedIndexInformer{addresses.Informer()}, Reconcile: s.reconcile,
	}.Run, nil
}

// prefixes returns the ranges of c.
func prefixes(c *v1.ServiceCIDR) (out []netip.Prefix) {
	for _, text := range c.Spec.CIDRs {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

func contains(c *v1.ServiceCIDR, ip netip.Addr) bool {
	return slices.ContainsFunc(prefixes(c), func(p netip.Prefix) bool { return p.Contains(ip) })
}

func overlap(a, b *v1.ServiceCIDR) bool {
	return slices.ContainsFunc(prefixes(a), func(p netip.Prefix) bool { return slices.ContainsFunc(prefixes(b), p.Overlaps) })
}

func (s *controller) reconcile(ctx context.Context, c *v1.ServiceCIDR) (reconcile.Result, error) {
	if c.DeletionTimestamp == nil {
		if err := s.protect(ctx, c); err != nil {
			return reconcile.Result{}, err
		}
		if meta.IsStatusConditionTrue(c.Status.Conditions, v1.ServiceCIDRConditionReady) {
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, s.condition(ctx, c, metav1.Condition{Status: metav1.ConditionTrue, Message: "Kubernetes Service CIDR is ready"})
	}
	if !slices.Contains(c.Finalizers, finalizer) {
		return reconcile.Result{}, nil
	}
	inUse, err := s.inUse(c)
	if err != nil {
		return reconcile.Result{}, err
	}
	if inUse {
		return reconcile.Result{}, s.condition(ctx, c, metav1.Condition{Status: metav1.ConditionFalse, Reason: v1.ServiceCIDRReasonTerminating,
			Message: "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"})
	}
	if wait := quiet - s.clock.Since(c.DeletionTimestamp.Time); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	return reconcile.Result{}, s.release(ctx, c)
}

// inUse reports whether some address is in no range but c's. Ranges that are being
// deleted do not count.
func (s *controller) inUse(c *v1.ServiceCIDR) (bool, error) {
	all, err := s.cidrs.List(labels.Everything())
	if err != nil {
		return false, err
	}
	others := slices.DeleteFunc(slices.Clone(all), func(o *v1.ServiceCIDR) bool { return o.Name == c.Name || o.DeletionTimestamp != nil })
	addresses, err := s.addresses.List(labels.Everything())
	if err != nil {
		return false, err
	}
	for _, a := range addresses {
		ip, err := netip.ParseAddr(a.Name)
		if err == nil && contains(c, ip) && !slices.ContainsFunc(others, func(o *v1.ServiceCIDR) bool { return contains(o, ip) }) {
			return true, nil
		}
	}
	return false, nil
}

// patch changes the object as it is in the cache, and no later one.
func (s *controller) patch(ctx context.Context, c *v1.ServiceCIDR, metadata, status map[string]any, subresources ...string) error {
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["uid"], metadata["resourceVersion"] = c.UID, c.ResourceVersion
	change := map[string]any{"metadata": metadata}
	if status != nil {
		change["status"] = status
	}
	data, err := json.Marshal(change)
	if err != nil {
		return err
	}
	_, err = s.client.NetworkingV1().ServiceCIDRs().Patch(ctx, c.Name, types.MergePatchType, data, metav1.PatchOptions{}, subresources...)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the informer brings what it is now
	}
	return err
}

func (s *controller) protect(ctx context.Context, c *v1.ServiceCIDR) error {
	if slices.Contains(c.Finalizers, finalizer) {
		return nil
	}
	return s.patch(ctx, c, map[string]any{"finalizers": append(slices.Clone(c.Finalizers), finalizer)}, nil)
}

func (s *controller) release(ctx context.Context, c *v1.ServiceCIDR) error {
	left := slices.DeleteFunc(slices.Clone(c.Finalizers), func(f string) bool { return f == finalizer })
	return s.patch(ctx, c, map[string]any{"finalizers": left}, nil)
}

// condition sets the condition Ready, unless it is so.
func (s *controller) condition(ctx context.Context, c *v1.ServiceCIDR, want metav1.Condition) error {
	want.Type = v1.ServiceCIDRConditionReady
	if is := meta.FindStatusCondition(c.Status.Conditions, want.Type); is != nil && is.Status == want.Status && is.Reason == want.Reason && is.Message == want.Message {
		return nil
	}
	conditions := slices.Clone(c.Status.Conditions)
	want.LastTransitionTime = metav1.NewTime(s.clock.Now())
	meta.SetStatusCondition(&conditions, want)
	return s.patch(ctx, c, nil, map[string]any{"conditions": conditions}, "status")
}
