package serviceip

import (
	"context"
	"net/netip"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
)

// stored implements Objects: it reads in the store, so that a range counts at once,
// and writes as the API server's own client.
type stored struct {
	store     store.Store
	catalogue *catalogue.Catalogue
	client    func() kubernetes.Interface
}

func listOf[T any](ctx context.Context, o *stored, group, resource string) ([]T, error) {
	res, err := o.store.List(ctx, o.catalogue.Must(group, "v1", resource).Prefix(""), store.ListOptions{})
	if err != nil {
		return nil, err
	}
	out := make([]T, len(res.Entries))
	for i, e := range res.Entries {
		out[i] = e.Object().(T)
	}
	return out, nil
}

// services returns the Services that there are now.
func (o *stored) services(ctx context.Context) ([]*v1.Service, error) {
	return listOf[*v1.Service](ctx, o, "", "services")
}

// CIDRs implements serviceip.Objects.
func (o *stored) CIDRs(ctx context.Context) ([]*networkingv1.ServiceCIDR, error) {
	return listOf[*networkingv1.ServiceCIDR](ctx, o, networkingv1.GroupName, "servicecidrs")
}

// Addresses implements serviceip.Objects.
func (o *stored) Addresses(ctx context.Context) ([]*networkingv1.IPAddress, error) {
	return listOf[*networkingv1.IPAddress](ctx, o, networkingv1.GroupName, "ipaddresses")
}

// Address implements serviceip.Objects.
func (o *stored) Address(ctx context.Context, ip netip.Addr) (*networkingv1.IPAddress, error) {
	e, err := o.store.Get(ctx, o.catalogue.Must(networkingv1.GroupName, "v1", "ipaddresses").Key("", ip.String()))
	if err != nil || e == nil {
		return nil, err
	}
	return e.Object().(*networkingv1.IPAddress), nil
}

// Create implements serviceip.Objects.
func (o *stored) Create(ctx context.Context, a *networkingv1.IPAddress) error {
	_, err := o.client().NetworkingV1().IPAddresses().Create(ctx, a, metav1.CreateOptions{})
	return err
}

// Delete implements serviceip.Objects.
func (o *stored) Delete(ctx context.Context, a *networkingv1.IPAddress) error {
	err := o.client().NetworkingV1().IPAddresses().Delete(ctx, a.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(a.UID)}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
