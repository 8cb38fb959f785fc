package serviceip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
)

// orphanAge is how long an IPAddress has no Service before it is removed: longer than
// a creation lasts.
const orphanAge = time.Minute

// Repair makes the IPAddresses agree with the Services, after a crash between the two
// writes or a deletion by hand. services lists the Services; tell is called with an
// event for each fault that was found.
func (a *Allocator) Repair(ctx context.Context, services func(context.Context) ([]*v1.Service, error), now time.Time, tell func(about runtime.Object, reason, message string)) error {
	// The addresses first: one whose Service is not yet there has a Service that is new.
	held, err := a.objects.Addresses(ctx)
	if err != nil {
		return err
	}
	all, err := services(ctx)
	if err != nil {
		return err
	}
	byName := make(map[string]*networkingv1.IPAddress, len(held))
	for _, h := range held {
		byName[h.Name] = h
	}
	blocks := map[v1.IPFamily][]block{}
	for _, family := range []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol} {
		if blocks[family], err = a.blocks(ctx, family); err != nil {
			return err
		}
	}
	var errs []error
	holder := map[netip.Addr]*v1.Service{}
	for _, s := range all {
		for _, ip := range addresses(s) {
			if other := holder[ip]; other != nil {
				tell(s, "ClusterIPAlreadyAllocated", fmt.Sprintf("Cluster IP [%v]:%s was assigned to multiple services; please recreate service", familyOf(ip), ip))
				continue
			}
			holder[ip] = s
			if !slices.ContainsFunc(blocks[familyOf(ip)], func(b block) bool { return b.has(ip) }) {
				tell(s, "ClusterIPOutOfRange", fmt.Sprintf("Cluster IP [%v]: %s is not within any configured Service CIDR; please recreate service", familyOf(ip), ip))
			}
			h := byName[ip.String()]
			switch {
			case h == nil:
				tell(s, "ClusterIPNotAllocated", fmt.Sprintf("Cluster IP [%v]: %s is not allocated; repairing", familyOf(ip), ip))
			case !isOf(h, s):
				tell(s, "ClusterIPNotAllocated", fmt.Sprintf("the ClusterIP [%v]: %s for Service %s/%s has a wrong reference; repairing", familyOf(ip), ip, s.Namespace, s.Name))
				if err := a.objects.Delete(ctx, h); err != nil {
					errs = append(errs, err)
					continue
				}
			default:
				continue
			}
			if err := a.objects.Create(ctx, newAddress(ip, s)); err != nil && !apierrors.IsAlreadyExists(err) {
				errs = append(errs, err)
			}
		}
	}
	for _, h := range held {
		if h.Labels[networkingv1.LabelManagedBy] != managedBy || now.Sub(h.CreationTimestamp.Time) < orphanAge {
			continue
		}
		ip, err := netip.ParseAddr(h.Name)
		if err == nil && holder[ip] != nil {
			continue
		}
		tell(h, "IPAddressNotAllocated", fmt.Sprintf("IPAddress: %s for Service %s appears to have leaked; cleaning up", h.Name, parentName(h)))
		if err := a.objects.Delete(ctx, h); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func parentName(a *networkingv1.IPAddress) string {
	if p := a.Spec.ParentRef; p != nil {
		return p.Namespace + "/" + p.Name
	}
	return "<none>"
}
