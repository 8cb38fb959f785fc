package serviceip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Objects are the ServiceCIDRs and IPAddresses of the cluster.
type Objects interface {
	// CIDRs are the ServiceCIDRs that there are now.
	CIDRs(ctx context.Context) ([]*networkingv1.ServiceCIDR, error)
	// Addresses are the IPAddresses that there are now.
	Addresses(ctx context.Context) ([]*networkingv1.IPAddress, error)
	// Address gives the IPAddress of ip, nil if there is none.
	Address(ctx context.Context, ip netip.Addr) (*networkingv1.IPAddress, error)
	// Create makes an IPAddress; the error is AlreadyExists if it is taken.
	Create(ctx context.Context, a *networkingv1.IPAddress) error
	// Delete removes an IPAddress, unless there is another one in its place.
	Delete(ctx context.Context, a *networkingv1.IPAddress) error
}

// managedBy is the value of networkingv1.LabelManagedBy of the allocator's addresses.
const managedBy = "ipallocator.k8s.io"

var (
	errFull      = errors.New("range is full")
	errMismatch  = errors.New("the provided network does not match the current range")
	errAllocated = errors.New("provided IP is already allocated")
)

// newAddress makes the IPAddress by which s holds ip.
func newAddress(ip netip.Addr, s *v1.Service) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: ip.String(), Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(v1.IPv4Protocol), networkingv1.LabelManagedBy: managedBy}},
		Spec: networkingv1.IPAddressSpec{ParentRef: parentOf(s)},
	}
}

func parentOf(s *v1.Service) *networkingv1.ParentReference {
	return &networkingv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name}
}

// isOf reports whether a is held by s.
func isOf(a *networkingv1.IPAddress, s *v1.Service) bool {
	return a.Spec.ParentRef != nil && *a.Spec.ParentRef == *parentOf(s)
}

// ready reports whether addresses of c may be given out: not while it is being
// deleted; one that no controller has looked at is ready.
func ready(c *networkingv1.ServiceCIDR) bool {
	for _, cond := range c.Status.Conditions {
		if cond.Type == networkingv1.ServiceCIDRConditionReady && cond.Status != metav1.ConditionTrue {
			return false
		}
	}
	return c.DeletionTimestamp == nil
}

// block is an IPv4 range whose first and last address are not assigned.
type block struct{ netip.Prefix }

// blocks are the ranges that addresses may be given out of, the oldest first.
func (a *Allocator) blocks(ctx context.Context) ([]block, error) {
	cidrs, err := a.objects.CIDRs(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(cidrs, func(a, b *networkingv1.ServiceCIDR) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	var out []block
	for _, c := range cidrs {
		for _, text := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is4() && ready(c) {
				out = append(out, block{p.Masked()})
			}
		}
	}
	return out, nil
}

// size is the number of addresses of the block.
func (b block) size() int { return 1 << (32 - b.Bits()) }

// at is the address n places into the block.
func (b block) at(n int) netip.Addr {
	x := b.Addr().As4()
	v := uint32(x[0])<<24 | uint32(x[1])<<16 | uint32(x[2])<<8 | uint32(x[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

func (b block) has(ip netip.Addr) bool {
	return b.Contains(ip) && ip != b.Addr() && ip != b.at(b.size()-1)
}

// bands are the bounds of the places that are given out, the upper ones first: the
// lower are for those that are asked for by number (KEP-3070).
func (b block) bands() [2][2]int {
	size := b.size()
	low := min(max(16, size/16), 256)
	if size < 32 {
		low = 0
	}
	return [2][2]int{{1 + low, size - 1}, {1, 1 + low}}
}

// take makes s the holder of ip.
func (a *Allocator) take(ctx context.Context, ip netip.Addr, s *v1.Service, dryRun bool) error {
	if dryRun {
		held, err := a.objects.Address(ctx, ip)
		if err == nil && held != nil {
			err = errAllocated
		}
		return err
	}
	err := a.objects.Create(ctx, newAddress(ip, s))
	if apierrors.IsAlreadyExists(err) {
		return errAllocated
	}
	return err
}

// guesses is how many addresses are tried at random before those that are taken are read.
const guesses = 4

// dynamic takes a free address.
func (a *Allocator) dynamic(ctx context.Context, s *v1.Service, dryRun bool) (netip.Addr, error) {
	blocks, err := a.blocks(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	var taken map[string]bool
	for _, b := range blocks {
		upper := b.bands()[0]
		for range guesses {
			ip := b.at(upper[0] + rand.IntN(max(1, upper[1]-upper[0])))
			if err := a.take(ctx, ip, s, dryRun); !errors.Is(err, errAllocated) {
				return ip, err
			}
		}
		if taken == nil {
			all, err := a.objects.Addresses(ctx)
			if err != nil {
				return netip.Addr{}, err
			}
			taken = make(map[string]bool, len(all))
			for _, held := range all {
				taken[held.Name] = true
			}
		}
		for _, band := range b.bands() {
			n := band[1] - band[0]
			if n <= 0 {
				continue
			}
			start := rand.IntN(n)
			for i := range n {
				ip := b.at(band[0] + (start+i)%n)
				if taken[ip.String()] {
					continue
				}
				if err := a.take(ctx, ip, s, dryRun); !errors.Is(err, errAllocated) {
					return ip, err
				}
			}
		}
	}
	return netip.Addr{}, errFull
}

// address takes the address that s asks for, or one for it where it asks for any. It
// gives the one that it took, if any.
func (a *Allocator) address(ctx context.Context, s, old *v1.Service, dryRun bool) (taken netip.Addr, err error) {
	if s.Spec.Type == v1.ServiceTypeExternalName || s.Spec.ClusterIP == v1.ClusterIPNone {
		return taken, nil
	}
	if s.Spec.ClusterIP == "" {
		ip, err := a.dynamic(ctx, s, dryRun)
		if err != nil {
			if errors.Is(err, errFull) {
				err = apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: %w", err))
			}
			return taken, err
		}
		s.Spec.ClusterIP, s.Spec.ClusterIPs = ip.String(), []string{ip.String()}
		return ip, nil
	}
	at := field.NewPath("spec", "clusterIPs")
	ip, err := netip.ParseAddr(s.Spec.ClusterIP)
	if err != nil {
		return taken, invalid(s, field.Invalid(at.Index(0), s.Spec.ClusterIP, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
	}
	if slices.Contains(addresses(old), ip) {
		return taken, nil
	}
	blocks, err := a.blocks(ctx)
	if err != nil {
		return taken, err
	}
	if slices.ContainsFunc(blocks, func(b block) bool { return b.has(ip) }) {
		err = a.take(ctx, ip, s, dryRun)
	} else {
		err = errMismatch
	}
	switch {
	case err == nil:
		return ip, nil
	case errors.Is(err, errAllocated), errors.Is(err, errMismatch):
		return taken, invalid(s, field.Invalid(at, s.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %s: %v", s.Spec.ClusterIP, err)))
	}
	return taken, err
}

// free lets go of the addresses that s held. What fails is for the repair.
func (a *Allocator) free(ctx context.Context, s *v1.Service, ips ...netip.Addr) {
	ctx = context.WithoutCancel(ctx)
	for _, ip := range ips {
		if held, err := a.objects.Address(ctx, ip); err == nil && held != nil && isOf(held, s) {
			_ = a.objects.Delete(ctx, held)
		}
	}
}
