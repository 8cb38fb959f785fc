package serviceip

import (
	"context"
	"encoding/binary"
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
	// CIDRs returns the ServiceCIDRs that there are now.
	CIDRs(ctx context.Context) ([]*networkingv1.ServiceCIDR, error)
	// Addresses returns the IPAddresses that there are now.
	Addresses(ctx context.Context) ([]*networkingv1.IPAddress, error)
	// Address returns the IPAddress of ip, nil if there is none.
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
			networkingv1.LabelIPAddressFamily: string(familyOf(ip)), networkingv1.LabelManagedBy: managedBy}},
		Spec: networkingv1.IPAddressSpec{ParentRef: parentOf(s)},
	}
}

func familyOf(ip netip.Addr) v1.IPFamily {
	if ip.Is6() {
		return v1.IPv6Protocol
	}
	return v1.IPv4Protocol
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

// block is a range whose network's address is not assigned, nor the last one where it
// is IPv4, which is for broadcasts.
type block struct{ netip.Prefix }

// blocks returns the ranges of a family that addresses may be given out of, the oldest
// first.
func (a *Allocator) blocks(ctx context.Context, family v1.IPFamily) ([]block, error) {
	cidrs, err := a.objects.CIDRs(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(cidrs, func(a, b *networkingv1.ServiceCIDR) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	var out []block
	for _, c := range cidrs {
		for _, text := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil && familyOf(p.Addr()) == family && ready(c) {
				out = append(out, block{p.Masked()})
			}
		}
	}
	return out, nil
}

// end returns the place after the last that is assigned. Of a range of more than 2^62
// addresses only so many are given out.
func (b block) end() uint64 {
	n := uint64(1) << min(b.Addr().BitLen()-b.Bits(), 62)
	if b.Addr().Is4() {
		n--
	}
	return n
}

// at returns the address n places into the block.
func (b block) at(n uint64) netip.Addr {
	if b.Addr().Is4() {
		x := b.Addr().As4()
		binary.BigEndian.PutUint32(x[:], binary.BigEndian.Uint32(x[:])+uint32(n))
		return netip.AddrFrom4(x)
	}
	// A block begins at a multiple of its size: the sum of the lower half carries
	// nothing over.
	x := b.Addr().As16()
	binary.BigEndian.PutUint64(x[8:], binary.BigEndian.Uint64(x[8:])+n)
	return netip.AddrFrom16(x)
}

func (b block) has(ip netip.Addr) bool {
	return b.Contains(ip) && ip != b.Addr() && (ip.Is6() || ip != b.at(b.end()))
}

// bands returns the bounds of the places that are given out, the upper ones first: the
// lower are for those that are asked for by number (KEP-3070).
func (b block) bands() [2][2]uint64 {
	size := uint64(1) << min(b.Addr().BitLen()-b.Bits(), 62)
	low := min(max(16, size/16), 256)
	if size < 32 {
		low = 0
	}
	return [2][2]uint64{{1 + low, b.end()}, {1, 1 + low}}
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

// dynamic takes a free address of a family.
func (a *Allocator) dynamic(ctx context.Context, s *v1.Service, family v1.IPFamily, dryRun bool) (netip.Addr, error) {
	blocks, err := a.blocks(ctx, family)
	if err != nil {
		return netip.Addr{}, err
	}
	var taken map[string]bool
	for _, b := range blocks {
		upper := b.bands()[0]
		for range guesses {
			if upper[1] <= upper[0] {
				break
			}
			ip := b.at(upper[0] + rand.Uint64N(upper[1]-upper[0]))
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
			if band[1] <= band[0] {
				continue
			}
			n := band[1] - band[0]
			start := rand.Uint64N(n)
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

// addresses takes an address of each of s's families: the one that s asks for, or one
// for it where it asks for any. It returns those that it took.
func (a *Allocator) addresses(ctx context.Context, s, old *v1.Service, dryRun bool) (taken []netip.Addr, err error) {
	if s.Spec.Type == v1.ServiceTypeExternalName || s.Spec.ClusterIP == v1.ClusterIPNone {
		return nil, nil
	}
	ips := slices.Clone(s.Spec.ClusterIPs)
	for i, family := range s.Spec.IPFamilies {
		if i == len(ips) {
			ips = append(ips, "")
		}
		ip, mine, err := a.address(ctx, s, old, family, ips[i], dryRun)
		if err != nil {
			if !dryRun {
				a.free(ctx, s, taken...)
			}
			return nil, err
		}
		if ips[i] == "" {
			ips[i] = ip.String()
		}
		if mine {
			taken = append(taken, ip)
		}
	}
	s.Spec.ClusterIP, s.Spec.ClusterIPs = ips[0], ips
	return taken, nil
}

// address takes one address for s, and reports whether it was not held before.
func (a *Allocator) address(ctx context.Context, s, old *v1.Service, family v1.IPFamily, wanted string, dryRun bool) (ip netip.Addr, taken bool, err error) {
	if wanted == "" {
		ip, err = a.dynamic(ctx, s, family, dryRun)
		if errors.Is(err, errFull) {
			err = apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: %w", err))
		}
		return ip, err == nil, err
	}
	at := field.NewPath("spec", "clusterIPs")
	if ip, err = netip.ParseAddr(wanted); err != nil {
		return ip, false, invalid(s, field.Invalid(at.Index(0), wanted, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
	}
	if slices.Contains(addresses(old), ip) {
		return ip, false, nil
	}
	blocks, err := a.blocks(ctx, family)
	if err != nil {
		return ip, false, err
	}
	if slices.ContainsFunc(blocks, func(b block) bool { return b.has(ip) }) {
		err = a.take(ctx, ip, s, dryRun)
	} else {
		err = errMismatch
	}
	if errors.Is(err, errAllocated) || errors.Is(err, errMismatch) {
		err = invalid(s, field.Invalid(at, s.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %s: %v", wanted, err)))
	}
	return ip, err == nil, err
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
