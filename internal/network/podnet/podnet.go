package podnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Kernel is the network configuration of a machine.
type Kernel interface {
	// Way returns the machine's route to an address.
	Way(netip.Addr) (Way, error)
	// IPv6 reports whether the machine has IPv6.
	IPv6() bool
	// Occupied returns the ranges of the machine's other routes, except the default.
	Occupied() ([]netip.Prefix, error)
	// Apply configures the machine's routes and tunnel.
	Apply(State) error
	// Changes returns a channel that receives when something has changed that Way
	// depends on, until ctx is done.
	Changes(ctx context.Context) (<-chan struct{}, error)
	// Forward lets the pods' packets through where a firewall of the machine drops
	// what it forwards.
	Forward() error
}

// Config configures a Network.
type Config struct {
	// NodeName is this machine's node.
	NodeName string
	// Nodes is an informer of all nodes; the caller starts it.
	Nodes  cache.SharedIndexInformer
	Kernel Kernel
	// Ranges, if set, are the ranges of this machine's pods, in place of the Node's.
	Ranges []netip.Prefix
	// Services are the ranges of the Services' addresses, where they are known.
	Services []netip.Prefix
	// Local sets up the pods' own network of the machine: their ranges, those of the
	// whole cluster, and the MTU.
	Local func(Plan) error
	// Problem, if set, is called once for each problem, however long it lasts.
	Problem func(reason string, err error)
	Clock   clock.WithTicker
}

// Network keeps a machine's network in step with the Nodes.
type Network struct {
	Config
	nodes corelisters.NodeLister
	wake  chan struct{}
	mu    sync.Mutex
	// told are the problems of the last pass.
	told map[string]bool
	// lacking is since when the Node has no range; zero if it has one.
	lacking time.Time
	// ways are those that were asked for, as long as the kernel reports no change.
	ways map[netip.Addr]Way
	// last is the plan that was applied at the time looked; nil if the last pass failed.
	last   *Plan
	looked time.Time
}

// coalesce is how long changes are gathered, at least; a pass that took long is followed by a
// pause of rest times as long, at most longestRest, while many pods come and go. retryPeriod
// is the time between an error and a new attempt. checkPeriod is the time between checks of firewalls and of the
// machine's own part; wholePeriod is that between checks of everything, in case a change
// was not reported.
const (
	coalesce, rest, longestRest           = 50 * time.Millisecond, 50, 500 * time.Millisecond
	retryPeriod, checkPeriod, wholePeriod = time.Second, 5 * time.Second, time.Minute
)

// rangePatience is how long the Node may have no range before that is reported.
const rangePatience = 10 * time.Second

// New makes a Network; Run runs it.
func New(c Config) (*Network, error) {
	n := &Network{Config: c, nodes: corelisters.NewNodeLister(c.Nodes.GetIndexer()), wake: make(chan struct{}, 1)}
	changed := func(any) { n.changed() }
	_, err := c.Nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: changed, DeleteFunc: changed, UpdateFunc: func(old, now any) {
		a, b := nodeOf(old.(*v1.Node)), nodeOf(now.(*v1.Node))
		if !reflect.DeepEqual(a, b) {
			n.changed()
		}
	}})
	return n, err
}

func (n *Network) changed() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Run keeps the network until ctx is done. What it has made stays.
func (n *Network) Run(ctx context.Context) error {
	changes, err := n.Kernel.Changes(ctx)
	if err != nil {
		return err
	}
	if !cache.WaitForCacheSync(ctx.Done(), n.Nodes.HasSynced) {
		return nil
	}
	for whole := true; ; {
		wait, begun := checkPeriod, n.Clock.Now()
		if err := n.pass(whole); err != nil {
			klog.FromContext(ctx).Error(err, "The pods' network is not what it should be; trying again")
			wait = retryPeriod
		}
		pause := max(coalesce, min(rest*n.Clock.Since(begun), longestRest))
		select {
		case <-n.Clock.After(wait):
			if whole = n.last == nil || n.Clock.Since(n.looked) >= wholePeriod; whole {
				n.ways = nil
			}
		case <-changes:
			whole, n.ways = true, nil
		case <-n.wake:
			whole = true
		case <-ctx.Done():
			return nil
		}
		select {
		case <-n.Clock.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// way returns how an address is reached.
func (n *Network) way(a netip.Addr) (Way, error) {
	if w, ok := n.ways[a]; ok {
		return w, nil
	}
	w, err := n.Kernel.Way(a)
	if err == nil {
		if n.ways == nil {
			n.ways = map[netip.Addr]Way{}
		}
		n.ways[a] = w
	}
	return w, err
}

// pass brings the machine's network up to date with the Nodes; where whole is not set,
// only what is checked more often is looked at.
func (n *Network) pass(whole bool) error {
	if !whole && n.last != nil {
		return n.apply(*n.last, false)
	}
	n.last = nil
	all, err := n.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	var self *Node
	nodes := make([]Node, 0, len(all))
	for _, o := range all {
		node := nodeOf(o)
		nodes = append(nodes, node)
		if node.Name == n.NodeName {
			if len(n.Ranges) > 0 {
				node.Ranges = n.Ranges
			}
			self = &node
		}
	}
	if self == nil || len(self.Ranges) == 0 {
		n.lack(self != nil)
		return nil
	}
	n.lacking = time.Time{}
	occupied, err := n.Kernel.Occupied()
	if err != nil {
		return err
	}
	p := plan(*self, nodes, occupied, n.Services, n.Kernel.IPv6(), n.way)
	err = n.apply(p, true)
	if err == nil {
		n.last, n.looked = &p, n.Clock.Now()
	}
	return err
}

// apply makes a plan that of the machine; where whole is not set, without the ways to
// others.
func (n *Network) apply(p Plan, whole bool) error {
	troubles := slices.Clone(p.Troubles)
	var errs []error
	if err := n.Local(p); err != nil {
		errs = append(errs, fmt.Errorf("the pods' own network: %w", err))
	}
	if whole {
		errs = append(errs, n.Kernel.Apply(p.State))
	}
	err := errors.Join(errs...)
	if err != nil {
		n.last = nil
		troubles = append(troubles, Trouble{Failed, err})
	}
	if err := n.Kernel.Forward(); err != nil {
		troubles = append(troubles, Trouble{Forwarding, err})
	}
	n.tell(troubles)
	return err
}

// lack reports that the Node has no range, once that has lasted for
// rangePatience; node is whether the Node exists.
func (n *Network) lack(node bool) {
	switch {
	case !node:
		n.lacking = time.Time{}
	case n.lacking.IsZero():
		n.lacking = n.Clock.Now()
	case n.Clock.Since(n.lacking) > rangePatience:
		n.tell([]Trouble{{NoRange, errors.New("the Node has no spec.podCIDRs, so that its pods get no addresses: have the cluster's controllers allocate them (--allocate-node-cidrs, --cluster-cidr), or give --pod-cidr")}})
	}
}

// tell reports the problems that are new since the last pass.
func (n *Network) tell(troubles []Trouble) {
	byReason := map[string][]string{}
	for _, t := range troubles {
		byReason[t.Reason] = append(byReason[t.Reason], t.Err.Error())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := map[string]bool{}
	for reason, all := range byReason {
		text := strings.Join(all[:min(len(all), 3)], "; ")
		if more := len(all) - 3; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		now[reason+text] = true
		if !n.told[reason+text] && n.Problem != nil {
			n.Problem(reason, errors.New(text))
		}
	}
	n.told = now
}
