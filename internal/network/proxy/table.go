package proxy

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// table holds the kernel's state of one family, and computes the changes to it.
type table struct {
	kernel Kernel
	here   here

	services map[types.NamespacedName]*installed
	// claims are the Services that want an element, in the order of their requests, those
	// that yield last. The first one has it.
	claims map[Place][]claim
	// free are the free blocks of endpoint numbers, by the logarithm of their size;
	// next is the first number that was never used.
	free [32][]block
	next uint32
	// sets counts the blocks, to spread them over the maps.
	sets int

	// own are the ports of this machine that Services have, and whether a program
	// has them.
	own map[types.NamespacedName]map[Key]bool

	// stale are the UDP destinations whose flows to other endpoints than these have not been
	// forgotten yet.
	stale map[netip.AddrPort]map[netip.AddrPort]bool

	// current reports whether the kernel's table matches installed. written reports
	// whether the kernel has a table: there is none before the first Service.
	current, written bool
}

type claim struct {
	by     types.NamespacedName
	value  Value
	yields bool
}

// installed is the kernel's state of a Service.
type installed struct {
	plan   *plan
	ranges map[string]*block
	rules  map[string][]Rule // with the numbers of endpoints
}

// block is a block of numbers, a power of two, of which the first len(at) are in
// use.
type block struct {
	set   string
	first uint32
	size  int // logarithm
	at    []netip.AddrPort
}

func newTable(k Kernel, h here) *table {
	t := &table{kernel: k, here: h, own: map[types.NamespacedName]map[Key]bool{}, stale: map[netip.AddrPort]map[netip.AddrPort]bool{}}
	t.reset()
	return t
}

// reset forgets everything before the table is replaced.
func (t *table) reset() {
	t.services, t.claims = map[types.NamespacedName]*installed{}, map[Place][]claim{}
	t.free, t.next, t.sets = [32][]block{}, 0, 0
	t.current, t.written = false, false
}

// sizeFor returns the logarithm of a block for n endpoints.
func sizeFor(n int) int { return bits.Len(uint(max(n, 1) - 1)) }

func (t *table) take(n int) *block {
	size := sizeFor(n)
	if f := t.free[size]; len(f) > 0 {
		b := f[len(f)-1]
		t.free[size] = f[:len(f)-1]
		return &b
	}
	b := &block{set: setOfEndpoints(t.sets), first: t.next, size: size}
	t.sets++
	t.next += 1 << size
	return b
}

// setOfEndpoints returns the name of the n-th map of endpoints.
func setOfEndpoints(n int) string { return endpoints + strconv.Itoa(n%spread) }

// change holds the new plans of some Services; a nil plan removes the Service.
type change map[types.NamespacedName]*plan

// write writes the plans to the kernel. After an error the table has to be
// written from nothing.
func (t *table) write(c change) error {
	var b Batch
	before := map[Place]claim{}
	touch := func(p Place) {
		if _, ok := before[p]; !ok {
			var was claim
			if all := t.claims[p]; len(all) > 0 {
				was = all[0]
			}
			before[p] = was
		}
	}
	names := make([]types.NamespacedName, 0, len(c))
	for n := range c {
		names = append(names, n)
	}
	// The order decides which Service gets an element that two want.
	slices.SortFunc(names, func(a, b types.NamespacedName) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	// All Services release what they no longer want before any takes something.
	for _, n := range names {
		if old := t.services[n]; old != nil {
			for p := range old.plan.elements {
				if next := c[n]; next != nil {
					if _, still := next.elements[p]; still {
						continue
					}
				}
				touch(p)
				t.claims[p] = slices.DeleteFunc(t.claims[p], func(c claim) bool { return c.by == n })
			}
		}
	}
	for _, n := range names {
		old, next := t.services[n], c[n]
		if next != nil {
			for p, v := range next.elements {
				touch(p)
				all := t.claims[p]
				yields := next.yielding[p]
				i := slices.IndexFunc(all, func(c claim) bool { return c.by == n })
				if i >= 0 && all[i].yields == yields {
					all[i].value = v
					continue
				}
				if i >= 0 {
					all = slices.Delete(all, i, i+1)
				}
				if i = slices.IndexFunc(all, func(c claim) bool { return c.yields }); yields || i < 0 {
					i = len(all)
				}
				t.claims[p] = slices.Insert(all, i, claim{n, v, yields})
			}
		}
		if now := t.install(&b, old, next); now != nil {
			t.services[n] = now
		} else {
			delete(t.services, n)
		}
	}
	for p, was := range before {
		var now claim
		if all := t.claims[p]; len(all) > 0 {
			now = all[0]
		} else {
			delete(t.claims, p)
		}
		if was.by.Name != "" && (now.by.Name == "" || now.value != was.value) {
			b.DeleteElements = append(b.DeleteElements, Element{p, was.value})
		}
		if now.by.Name != "" && (was.by.Name == "" || now.value != was.value) {
			b.AddElements = append(b.AddElements, Element{p, now.value})
		}
	}
	if err := t.send(&b); err != nil {
		return err
	}
	t.current = true
	return nil
}

func (t *table) send(b *Batch) error {
	bySet := func(a, b Element) int { return strings.Compare(a.Set, b.Set) } // consecutive elements of a set share a message
	slices.SortStableFunc(b.DeleteElements, bySet)
	slices.SortStableFunc(b.AddElements, bySet)
	if !t.written {
		if b.Empty() {
			if t.current {
				return nil
			}
			// A table that an earlier process left is obsolete.
			return t.kernel.Remove()
		}
		if err := t.kernel.Replace(b); err != nil {
			return err
		}
		t.written = true
		return nil
	}
	if b.Empty() {
		return nil
	}
	return t.kernel.Write(b)
}

// install appends the changes of a Service's chains and sets to the batch.
func (t *table) install(b *Batch, old *installed, next *plan) *installed {
	if old == nil {
		old = &installed{plan: &plan{}}
	}
	if next == nil {
		next = &plan{}
	}
	now := &installed{plan: next, ranges: map[string]*block{}, rules: map[string][]Rule{}}
	for chain, to := range next.endpoints {
		now.ranges[chain] = t.place(b, old.ranges[chain], to)
	}
	for chain, r := range old.ranges {
		if now.ranges[chain] == nil {
			t.give(b, r)
		}
	}
	for set := range next.affinity {
		if !old.plan.affinity[set] {
			b.AddAffinity = append(b.AddAffinity, set)
		}
	}
	for set, to := range next.live {
		had := map[netip.AddrPort]bool{}
		if was, ok := old.plan.live[set]; ok {
			for _, a := range was {
				had[a] = true
			}
		} else {
			b.AddLive = append(b.AddLive, set)
		}
		for _, a := range to {
			if !had[a] {
				b.AddElements = append(b.AddElements, liveElement(set, a))
			}
			delete(had, a)
		}
		for a := range had {
			b.DeleteElements = append(b.DeleteElements, liveElement(set, a))
		}
	}
	for chain, rules := range next.chains {
		rules := slices.Clone(rules)
		for i := range rules {
			if rules[i].Do == Balance {
				r := now.ranges[chain]
				rules[i].Set, rules[i].First, rules[i].N = r.set, r.first, uint32(len(r.at))
			}
		}
		now.rules[chain] = rules
		was, there := old.rules[chain]
		if !there {
			b.AddChains = append(b.AddChains, chain)
		}
		if !there || !slices.Equal(was, rules) {
			b.Rules = append(b.Rules, Chain{chain, rules})
		}
	}
	for chain := range old.rules {
		if _, still := now.rules[chain]; !still {
			b.DeleteChains = append(b.DeleteChains, chain)
		}
	}
	for set := range old.plan.affinity {
		if !next.affinity[set] {
			b.DeleteSets = append(b.DeleteSets, set)
		}
	}
	for set := range old.plan.live {
		if _, still := next.live[set]; !still {
			b.DeleteSets = append(b.DeleteSets, set)
		}
	}
	if len(now.rules) == 0 && len(next.elements) == 0 {
		return nil
	}
	return now
}

func liveElement(set string, a netip.AddrPort) Element {
	return Element{Place: Place{set, Key{Addr: a.Addr(), Port: a.Port()}}}
}

// numbered returns the element of the block's endpoint i.
func (r *block) numbered(i int, a netip.AddrPort) Element {
	return Element{Place{r.set, Key{Number: r.first + uint32(i)}}, Value{Endpoint: a}}
}

// place assigns consecutive numbers to the endpoints, and moves as few of them as
// possible: the last ones take the places of those that went.
func (t *table) place(b *Batch, old *block, want []netip.AddrPort) *block {
	if old != nil && len(want) > 1<<old.size || old != nil && old.size > 4 && len(want) < 1<<(old.size-2) {
		t.give(b, old)
		old = nil
	}
	if old == nil {
		r := t.take(len(want))
		r.at = slices.Clone(want)
		for i, a := range want {
			b.AddElements = append(b.AddElements, r.numbered(i, a))
		}
		return r
	}
	if slices.Equal(old.at, want) {
		return old
	}
	wanted := make(map[netip.AddrPort]bool, len(want))
	for _, a := range want {
		wanted[a] = true
	}
	r := &block{old.set, old.first, old.size, make([]netip.AddrPort, len(want))}
	var holes []int
	for i := range r.at {
		if i < len(old.at) && wanted[old.at[i]] {
			r.at[i] = old.at[i]
			delete(wanted, old.at[i])
		} else {
			holes = append(holes, i)
		}
	}
	for _, a := range want { // in order, so that the same input gives the same batch
		if !wanted[a] {
			continue
		}
		r.at[holes[0]] = a
		holes = holes[1:]
	}
	for i := range max(len(old.at), len(r.at)) {
		switch {
		case i >= len(r.at):
			b.DeleteElements = append(b.DeleteElements, r.numbered(i, old.at[i]))
		case i >= len(old.at):
			b.AddElements = append(b.AddElements, r.numbered(i, r.at[i]))
		case old.at[i] != r.at[i]:
			b.DeleteElements = append(b.DeleteElements, r.numbered(i, old.at[i]))
			b.AddElements = append(b.AddElements, r.numbered(i, r.at[i]))
		}
	}
	return r
}

// give deletes the block's endpoints from the kernel and frees its numbers.
func (t *table) give(b *Batch, r *block) {
	for i, a := range r.at {
		b.DeleteElements = append(b.DeleteElements, r.numbered(i, a))
	}
	t.free[r.size] = append(t.free[r.size], block{set: r.set, first: r.first, size: r.size})
}
