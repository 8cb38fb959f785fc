package nodelifecycle

import (
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/topology"

	"keelson.dev/keelson/internal/controllers"
)

// excluded is the label of nodes that do not count when zones are judged.
const excluded = "node.kubernetes.io/exclude-disruption"

// disruption is what a zone's nodes are like.
type disruption string

const (
	initial disruption = "Initial" // not judged yet
	normal  disruption = "Normal"
	partial disruption = "PartialDisruption" // so many nodes are not ready that it may be the network
	full    disruption = "FullDisruption"    // no node is ready
)

// zones are the zones of the cluster. They bound how fast nodes are given the taint that
// evicts their pods: where many nodes fail at once, it may be that only the control plane
// cannot reach them, and their pods are better left alone
// (https://kubernetes.io/docs/concepts/architecture/nodes/#rate-limits-on-eviction).
type zones struct {
	controllers.NodeLifecycle
	mu sync.Mutex
	// judged says that the nodes have been looked at once: before that no node is tainted.
	judged bool
	m      map[string]*zone
}

// zone is a zone: nodes with the same region and zone.
type zone struct {
	state   disruption
	rate    float32 // taints a second
	last    time.Time
	waiting []string // nodes, in the order in which they are to be tainted
}

// health is how many nodes of a zone are ready, and how many are not.
type health struct{ ready, unready int }

// counted adds the nodes that count to the health of their zones.
func counted(nodes []*v1.Node) map[string]health {
	out := map[string]health{}
	for _, n := range nodes {
		if _, ok := n.Labels[excluded]; ok {
			continue
		}
		key := topology.GetZoneKey(n)
		h := out[key]
		if c := condition(n, v1.NodeReady); c != nil && c.Status == v1.ConditionTrue {
			h.ready++
		} else {
			h.unready++
		}
		out[key] = h
	}
	return out
}

// judge returns the state of a zone.
func (z *zones) judge(h health) disruption {
	switch {
	case h.ready == 0 && h.unready > 0:
		return full
	case h.unready > 2 && float32(h.unready)/float32(h.unready+h.ready) >= z.UnhealthyZoneThreshold:
		return partial
	}
	return normal
}

// pace returns how fast nodes are tainted in a zone of a state and size.
func (z *zones) pace(s disruption, h health) float32 {
	if s != partial {
		return z.EvictionRate
	}
	if h.ready+h.unready > int(z.LargeClusterSizeThreshold) {
		return z.SecondaryEvictionRate
	}
	return 0
}

// change is what a look at all zones has found.
type change struct {
	// stopped says that no node of the cluster is ready any more: it is rather the
	// control plane that is cut off, and no pod is evicted. resumed says that this is over.
	stopped, resumed bool
	// wake are the nodes whose turn may come at another time than before.
	wake []string
}

// look judges the zones by the health of their nodes.
func (z *zones) look(now map[string]health) change {
	z.mu.Lock()
	defer z.mu.Unlock()
	first := !z.judged
	z.judged = true
	all, were := len(now) > 0, len(z.m) > 0
	states := map[string]disruption{}
	for key, h := range now {
		states[key] = z.judge(h)
		all = all && states[key] == full
		z.zone(key)
	}
	for key, x := range z.m {
		if _, ok := now[key]; !ok && len(x.waiting) == 0 {
			delete(z.m, key)
			continue
		}
		were = were && x.state == full
	}
	var c change
	switch {
	case all && were:
		return c
	case all:
		c.stopped = true
	case were:
		c.resumed = true
	}
	for key, x := range z.m {
		rate := z.pace(states[key], now[key])
		if all {
			rate = 0
		}
		if rate != x.rate || first {
			c.wake = append(c.wake, x.waiting...)
		}
		x.state, x.rate = states[key], rate
	}
	return c
}

// stopped reports whether no node of the cluster is ready.
func (z *zones) stopped() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, x := range z.m {
		if x.state != full {
			return false
		}
	}
	return z.judged && len(z.m) > 0
}

// zone returns the zone of a key.
func (z *zones) zone(key string) *zone {
	x := z.m[key]
	if x == nil {
		x = &zone{state: initial, rate: z.EvictionRate}
		z.m[key] = x
	}
	return x
}

// turn reports whether it is a node's turn to be tainted. If it is not, wait is the time until
// then, or 0 where it is not known: the node is woken then.
func (z *zones) turn(node *v1.Node, now time.Time) (ok bool, wait time.Duration) {
	z.mu.Lock()
	defer z.mu.Unlock()
	x := z.zone(topology.GetZoneKey(node))
	place := slices.Index(x.waiting, node.Name)
	if place < 0 {
		place = len(x.waiting)
		x.waiting = append(x.waiting, node.Name)
	}
	if x.rate <= 0 || !z.judged {
		return false, 0
	}
	each := time.Duration(float64(time.Second) / float64(x.rate)).Round(time.Millisecond)
	wait = x.last.Add(each * time.Duration(place+1)).Sub(now)
	if x.last.IsZero() {
		wait = each * time.Duration(place)
	}
	if wait > 0 {
		return false, wait
	}
	x.waiting = slices.Delete(x.waiting, place, place+1)
	x.last = now
	return true, 0
}

// again gives a node its turn back: it could not be tainted.
func (z *zones) again(node *v1.Node) {
	z.mu.Lock()
	defer z.mu.Unlock()
	x := z.zone(topology.GetZoneKey(node))
	if !slices.Contains(x.waiting, node.Name) {
		x.waiting = slices.Insert(x.waiting, 0, node.Name)
		x.last = time.Time{}
	}
}

// leave takes a node, of whatever zone, out of those that wait.
func (z *zones) leave(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, x := range z.m {
		if i := slices.Index(x.waiting, name); i >= 0 {
			x.waiting = slices.Delete(x.waiting, i, i+1)
		}
	}
}
