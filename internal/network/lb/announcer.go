package lb

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/network/reserved"
)

// Segments are the networks that the machine is connected to.
type Segments interface {
	// Answer makes the machine answer for these addresses, and for no others, and
	// announces the new ones on its networks. An error concerns some of the
	// addresses only.
	Answer(addrs []netip.Addr) error
	// Tell announces addresses again.
	Tell(addrs []netip.Addr)
	// Close ends all answers.
	Close()
}

// Announcer answers (ARP, NDP) for the addresses of the load balancers that are
// assigned to its node.
type Announcer struct {
	AnnouncerConfig
	wake   chan struct{}
	synced cache.DoneChecker
}

// AnnouncerConfig configures an Announcer.
type AnnouncerConfig struct {
	NodeName string
	// Services is an informer. The caller starts it.
	Services cache.SharedIndexInformer
	Segments Segments
	// Renewed, if set, returns when the API server has last heard of this node. A
	// node that is cut off for so long that it counts as failed stops answering:
	// another node takes over.
	Renewed func() time.Time
	// Reserved are the addresses that no machine answers for in this way, which users may
	// have put into a Service that another implementation balances.
	Reserved *reserved.Addresses
	Clock    clock.WithTicker
	// Problem, if set, is called with an error that keeps addresses from being
	// answered for.
	Problem func(error)
}

const (
	// inspection is how often the machine's interfaces, and its contact to the API
	// server, are checked.
	inspection = 2 * time.Second
	// tellings is how many times a new address is announced, since a packet may be
	// lost.
	tellings = 3
	// lasting is the number of failed attempts after which a problem is reported: an
	// interface that comes up gets its addresses a moment later.
	lasting = 3
	// cutOff is the time without contact after which the node counts as failed: the
	// duration of its Lease.
	cutOff = 40 * time.Second
)

// NewAnnouncer makes an announcer. It does nothing before Run.
func NewAnnouncer(c AnnouncerConfig) (*Announcer, error) {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	a := &Announcer{AnnouncerConfig: c, wake: make(chan struct{}, 1)}
	poke := func(any) {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
	reg, err := c.Services.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: poke, UpdateFunc: func(_, s any) { poke(s) }, DeleteFunc: poke})
	if err != nil {
		return nil, err
	}
	c.Reserved.OnChange(func() { poke(nil) })
	a.synced = reg.HasSyncedChecker()
	return a, nil
}

// Run answers for the addresses until ctx ends.
func (a *Announcer) Run(ctx context.Context) {
	defer a.Segments.Close()
	select {
	case <-a.synced.Done():
	case <-ctx.Done():
		return
	}
	tick := a.Clock.NewTicker(inspection)
	defer tick.Stop()
	told := map[netip.Addr]int{}
	failures := 0
	for {
		addrs := a.addresses()
		err := a.Segments.Answer(addrs)
		if failures++; err == nil {
			failures = 0
		}
		if failures == lasting {
			klog.FromContext(ctx).Error(err, "Addresses of load balancers are not answered for")
			if a.Problem != nil {
				a.Problem(err)
			}
		}
		maps.DeleteFunc(told, func(x netip.Addr, _ int) bool { return !slices.Contains(addrs, x) })
		for _, x := range addrs {
			if told[x] < tellings {
				told[x]++
			}
		}
		for again := true; again; {
			select {
			case <-ctx.Done():
				return
			case <-a.wake:
				again = false
			case <-tick.C():
				var unsure []netip.Addr
				for x, n := range told {
					if n < tellings {
						unsure = append(unsure, x)
						told[x]++
					}
				}
				a.Segments.Tell(unsure)
				again = len(addrs) == 0 && len(a.addresses()) == 0
			}
		}
	}
}

// addresses returns the addresses that this node answers for.
func (a *Announcer) addresses() (out []netip.Addr) {
	if a.Renewed != nil && a.Clock.Since(a.Renewed()) > cutOff {
		return nil
	}
	for _, obj := range a.Services.GetStore().List() {
		s, ok := obj.(*v1.Service)
		if !ok || s.Spec.Type != v1.ServiceTypeLoadBalancer || s.Annotations[AnnouncedBy] != a.NodeName {
			continue
		}
		if c := s.Spec.LoadBalancerClass; c != nil && *c != ClassPool {
			continue
		}
		for _, x := range addressesOf(s) {
			if a.Reserved.Served(s, x) && a.Reserved.Why(netip.AddrPortFrom(x, 0)) == "" {
				out = append(out, x)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
