package serviceip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// objects implements Objects in memory.
type objects struct {
	cidrs []*networkingv1.ServiceCIDR
	held  map[string]*networkingv1.IPAddress
	made  int
	fail  error
}

func newObjects(cidrs ...string) *objects {
	o := &objects{held: map[string]*networkingv1.IPAddress{}}
	for i, c := range cidrs {
		o.cidrs = append(o.cidrs, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i), CreationTimestamp: metav1.Unix(int64(i), 0)}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{c}}})
	}
	return o
}

func (o *objects) CIDRs(context.Context) ([]*networkingv1.ServiceCIDR, error) {
	return slices.Clone(o.cidrs), o.fail
}
func (o *objects) Addresses(context.Context) ([]*networkingv1.IPAddress, error) {
	return slices.Collect(maps.Values(o.held)), o.fail
}
func (o *objects) Address(_ context.Context, ip netip.Addr) (*networkingv1.IPAddress, error) {
	return o.held[ip.String()], o.fail
}
func (o *objects) Create(_ context.Context, a *networkingv1.IPAddress) error {
	if o.fail != nil {
		return o.fail
	}
	if o.held[a.Name] != nil {
		return apierrors.NewAlreadyExists(networkingv1.Resource("ipaddresses"), a.Name)
	}
	o.made++
	a.UID, a.CreationTimestamp = types.UID(fmt.Sprint(o.made)), metav1.Unix(1000, 0)
	o.held[a.Name] = a
	return nil
}
func (o *objects) Delete(_ context.Context, a *networkingv1.IPAddress) error {
	if now := o.held[a.Name]; now != nil && now.UID == a.UID {
		delete(o.held, a.Name)
	}
	return o.fail
}

func service(name string, t v1.ServiceType, ip string, ports ...int32) *v1.Service {
	s := &v1.Service{Spec: v1.ServiceSpec{Type: t, ClusterIP: ip}}
	s.Name = name
	if ip != "" {
		s.Spec.ClusterIPs = []string{ip}
	}
	for i, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Port: int32(80 + i), NodePort: p, Protocol: v1.ProtocolTCP})
	}
	return s
}

func TestReserve(t *testing.T) {
	held := service("held", v1.ServiceTypeNodePort, "10.0.0.5", 30001)
	o := newObjects("10.0.0.0/24")
	if err := o.Create(t.Context(), newAddress(netip.MustParseAddr("10.0.0.5"), held)); err != nil {
		t.Fatal(err)
	}
	a := New(o, ipv4, 30000, 30002, []*v1.Service{held})
	reserve := func(s, old *v1.Service, commit bool) error {
		t.Helper()
		var done func(bool)
		var err error
		if old == nil {
			done, err = a.Reserve(t.Context(), s, nil, false)
		} else {
			done, err = a.Reserve(t.Context(), s, old, false)
		}
		if err == nil {
			done(commit)
		}
		return err
	}
	for _, c := range []struct {
		name string
		s    *v1.Service
		want string
	}{
		{"taken", service("a", v1.ServiceTypeClusterIP, "10.0.0.5"), "failed to allocate IP 10.0.0.5: provided IP is already allocated"},
		{"outside", service("a", v1.ServiceTypeClusterIP, "10.1.0.5"), "failed to allocate IP 10.1.0.5: the provided network does not match the current range"},
		{"network", service("a", v1.ServiceTypeClusterIP, "10.0.0.0"), "failed to allocate IP 10.0.0.0: the provided network does not match the current range"},
		{"broadcast", service("a", v1.ServiceTypeClusterIP, "10.0.0.255"), "failed to allocate IP 10.0.0.255: the provided network does not match the current range"},
		{"port taken", service("a", v1.ServiceTypeNodePort, "", 30001), "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"},
		{"port outside", service("a", v1.ServiceTypeNodePort, "", 80), "provided port is not in the valid range. The range of valid ports is 30000-30002"},
	} {
		if err := reserve(c.s, nil, true); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	// A write that is not committed gives back what it took.
	dropped := service("dropped", v1.ServiceTypeNodePort, "10.0.0.9", 30002)
	for range 2 {
		if err := reserve(dropped.DeepCopy(), nil, false); err != nil {
			t.Fatal(err)
		}
	}
	s := service("s", v1.ServiceTypeNodePort, "", 0, 0)
	if err := reserve(s, nil, true); err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr(s.Spec.ClusterIP)
	if ip.As4()[3] < 17 || s.Spec.IPFamilies[0] != v1.IPv4Protocol {
		t.Errorf("given: %+v", s.Spec)
	}
	if p := s.Spec.Ports; p[0].NodePort == p[1].NodePort || p[0].NodePort == 30001 || p[1].NodePort == 30001 {
		t.Errorf("ports: %+v", p)
	}
	if err := reserve(service("full", v1.ServiceTypeNodePort, "", 0), nil, true); err == nil || !strings.Contains(err.Error(), "range is full") {
		t.Errorf("no port is left: %v", err)
	}
	// A change of type frees the ports.
	plain := s.DeepCopy()
	plain.Spec.Type = v1.ServiceTypeClusterIP
	for i := range plain.Spec.Ports {
		plain.Spec.Ports[i].NodePort = 0
	}
	if err := reserve(plain, s, true); err != nil {
		t.Fatal(err)
	}
	if err := reserve(service("next", v1.ServiceTypeNodePort, "", s.Spec.Ports[0].NodePort), nil, true); err != nil {
		t.Errorf("a freed port: %v", err)
	}
	a.Release(plain)
	if err := reserve(service("again", v1.ServiceTypeClusterIP, plain.Spec.ClusterIP), nil, true); err != nil {
		t.Errorf("a released address: %v", err)
	}
}

// TestRanges checks that addresses come of the oldest range that has one left and
// is not being deleted; by number they come of any.
func TestRanges(t *testing.T) {
	o := newObjects("10.0.0.0/30", "10.0.1.0/30", "fd00::/112")
	a := New(o, ipv4, 30000, 30002, nil)
	give := func(ip string) (string, error) {
		s := service("s", v1.ServiceTypeClusterIP, ip)
		done, err := a.Reserve(t.Context(), s, nil, false)
		if err == nil {
			done(true)
		}
		return s.Spec.ClusterIP, err
	}
	var got []string
	for range 4 {
		ip, err := give("")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ip)
	}
	slices.Sort(got[:2])
	slices.Sort(got[2:])
	if want := []string{"10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.1.2"}; !slices.Equal(got, want) {
		t.Errorf("given %v, want %v", got, want)
	}
	if _, err := give(""); !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "failed to allocate a serviceIP: range is full") {
		t.Errorf("none is left: %v", err)
	}
	o.cidrs = append(o.cidrs, newObjects("10.0.2.0/24").cidrs...)
	if ip, err := give(""); err != nil || !strings.HasPrefix(ip, "10.0.2.") {
		t.Errorf("of a new range: %s, %v", ip, err)
	}
	o.cidrs[3].Status.Conditions = []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionFalse}}
	if _, err := give("10.0.2.9"); err == nil || !strings.Contains(err.Error(), "the provided network does not match the current range") {
		t.Errorf("of a range that is not ready: %v", err)
	}
	o.cidrs[3].Status.Conditions = nil
	o.cidrs[3].DeletionTimestamp = &metav1.Time{}
	if _, err := give("10.0.2.9"); err == nil {
		t.Error("of a range that is being deleted")
	}
	// What fails, fails, and takes nothing.
	o.fail = errors.New("no store")
	if _, err := give(""); !errors.Is(err, o.fail) {
		t.Errorf("without a store: %v", err)
	}
}

func TestDryRunTakesNothing(t *testing.T) {
	o := newObjects("10.0.0.0/24")
	a := New(o, ipv4, 30000, 30000, nil)
	for range 2 {
		s := service("s", v1.ServiceTypeNodePort, "", 0)
		done, err := a.Reserve(t.Context(), s, nil, true)
		if err != nil || s.Spec.ClusterIP == "" || s.Spec.Ports[0].NodePort != 30000 {
			t.Fatalf("%+v, %v", s.Spec, err)
		}
		done(true)
	}
	if len(o.held) != 0 {
		t.Errorf("%d addresses are taken", len(o.held))
	}
}

func TestRepair(t *testing.T) {
	o := newObjects("10.0.0.0/24")
	a := New(o, ipv4, 30000, 30002, nil)
	in := func(name, ip string) *v1.Service {
		s := service(name, v1.ServiceTypeClusterIP, ip)
		s.Namespace = "n"
		return s
	}
	good, lost, stolen, twice, outside := in("good", "10.0.0.1"), in("lost", "10.0.0.2"), in("stolen", "10.0.0.3"), in("twice", "10.0.0.1"), in("outside", "10.9.0.1")
	put := func(ip string, s *v1.Service) *networkingv1.IPAddress {
		h := newAddress(netip.MustParseAddr(ip), s)
		if err := o.Create(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	put("10.0.0.1", good)
	put("10.0.0.3", in("other", ""))
	put("10.0.0.4", in("gone", ""))                                                       // a server died
	put("10.0.0.5", in("young", "")).CreationTimestamp = metav1.Unix(1000+3600-59, 0)     // its Service is being made
	put("10.0.0.6", in("mine", "")).Labels = map[string]string{"of": "another allocator"} // not ours to remove
	put("10.9.0.1", outside)
	for i, want := range [][]string{
		{"ClusterIPNotAllocated lost", "ClusterIPNotAllocated stolen", "ClusterIPAlreadyAllocated twice", "ClusterIPOutOfRange outside", "IPAddressNotAllocated 10.0.0.4"},
		{"ClusterIPAlreadyAllocated twice", "ClusterIPOutOfRange outside"},
	} {
		var told []string
		err := a.Repair(t.Context(), func(context.Context) ([]*v1.Service, error) {
			return []*v1.Service{good, lost, stolen, twice, outside}, nil
		}, time.Unix(1000+3600, 0),
			func(about runtime.Object, reason, _ string) {
				told = append(told, reason+" "+about.(metav1.Object).GetName())
			})
		if err != nil || !slices.Equal(told, want) {
			t.Errorf("repair %d told %q (%v), want %q", i, told, err, want)
		}
	}
	for ip, s := range map[string]*v1.Service{"10.0.0.1": good, "10.0.0.2": lost, "10.0.0.3": stolen, "10.0.0.5": in("young", ""), "10.0.0.6": in("mine", ""), "10.9.0.1": outside} {
		if h := o.held[ip]; h == nil || !isOf(h, s) {
			t.Errorf("%s is of %v, want %s", ip, h, s.Name)
		}
	}
	if len(o.held) != 6 {
		t.Errorf("%d addresses: %v", len(o.held), o.held)
	}
}
