package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// table holds the wanted sets and chains, for both families of addresses, and which
// of them the kernel has. Sets and chains are in both families; an element is in
// that of its address.
type table struct {
	kernels [2]Kernel // IPv4, IPv6; nil leaves a family out

	sets     map[string]*set
	chains   map[string]*chain
	touched  map[string]bool   // sets that changed since the last write
	rewrite  map[string]bool   // chains that changed
	elements map[place]*string // elements that changed, with the value in the kernel, nil if none

	// links are the bridges of isolated pods, in order.
	links []string

	// current reports whether the last write succeeded, written whether the kernel
	// has the tables at all.
	current, written bool
}

type place struct {
	set string
	key Key
}

type set struct {
	kind     Kind
	gone     bool // it is to be deleted
	there    bool // the kernel has it
	elements map[Key]string
}

type chain struct {
	rules, there []Rule
	gone         bool
	exists       bool // the kernel has it
}

func newTable(four, six Kernel) *table {
	t := &table{kernels: [2]Kernel{four, six}, sets: map[string]*set{}, chains: map[string]*chain{},
		touched: map[string]bool{}, rewrite: map[string]bool{}, elements: map[place]*string{}}
	for _, name := range []string{ingress, egress, itself} {
		t.sets[name] = &set{there: true, elements: map[Key]string{}}
	}
	return t
}

// addSet adds a set to the wanted ones.
func (t *table) addSet(name string, k Kind) {
	if s := t.sets[name]; s != nil { // it was to be deleted
		s.gone = false
		return
	}
	t.sets[name] = &set{kind: k, elements: map[Key]string{}}
	t.touched[name] = true
}

// deleteSet removes a set and its elements from the wanted ones.
func (t *table) deleteSet(name string) {
	s := t.sets[name]
	for k := range s.elements {
		t.deleteElement(name, k)
	}
	s.gone = true
	t.touched[name] = true
}

func (t *table) addElement(name string, k Key, chain string) {
	t.touch(place{name, k})
	t.sets[name].elements[k] = chain
}

func (t *table) deleteElement(name string, k Key) {
	t.touch(place{name, k})
	delete(t.sets[name].elements, k)
}

// touch records the kernel's value at a place that is about to change.
func (t *table) touch(p place) {
	if _, ok := t.elements[p]; ok {
		return
	}
	t.elements[p] = nil
	if had, ok := t.sets[p.set].elements[p.key]; ok {
		t.elements[p] = &had
	}
}

func (t *table) setChain(name string, rules []Rule) {
	c := t.chains[name]
	if c == nil {
		c = &chain{}
		t.chains[name] = c
	}
	c.rules, c.gone = rules, false
	t.rewrite[name] = true
}

func (t *table) deleteChain(name string) {
	t.chains[name].gone = true
	t.rewrite[name] = true
}

// addLink adds a bridge of isolated pods, unless it is "".
func (t *table) addLink(name string) {
	if i, ok := slices.BinarySearch(t.links, name); !ok && name != "" {
		t.links = slices.Insert(slices.Clone(t.links), i, name)
		t.current = false
	}
}

// forgetLinks forgets the bridges: no pod is isolated, so that the table is small.
func (t *table) forgetLinks() {
	if len(t.links) > 0 {
		t.links, t.current = nil, false
	}
}

// wanted reports whether there is anything to write to the kernel.
func (t *table) wanted() bool { return len(t.chains) > 0 }

// write writes the wanted state to the kernel. After an error the next write
// replaces the tables.
func (t *table) write() error {
	if t.current && len(t.touched)+len(t.rewrite)+len(t.elements) == 0 {
		return nil
	}
	anew := !t.current || !t.written
	var b [2]Batch
	if anew {
		t.purge()
		if !t.wanted() && !t.written {
			t.done()
			t.current = true
			return nil // no policy has ever selected a pod of this node
		}
		b = t.everything()
	} else {
		b = t.changes()
	}
	t.current = false
	for i, k := range t.kernels {
		var err error
		switch {
		case k == nil:
		case anew:
			err = k.Replace(&b[i])
		case !b[i].Empty():
			err = k.Write(&b[i])
		}
		if err != nil {
			return err
		}
	}
	t.purge()
	t.done()
	t.current, t.written = true, true
	return nil
}

// purge forgets the sets and chains that are no longer wanted.
func (t *table) purge() {
	maps.DeleteFunc(t.sets, func(_ string, s *set) bool { return s.gone })
	maps.DeleteFunc(t.chains, func(_ string, c *chain) bool { return c.gone })
}

// done marks the wanted state as written.
func (t *table) done() {
	for name := range t.touched {
		if s := t.sets[name]; s != nil {
			s.there = true
		}
	}
	for name := range t.rewrite {
		if c := t.chains[name]; c != nil {
			c.there, c.exists = c.rules, true
		}
	}
	clear(t.touched)
	clear(t.rewrite)
	clear(t.elements)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (t *table) everything() (b [2]Batch) {
	for i := range b {
		b[i].Links = t.links
	}
	for _, name := range slices.Sorted(maps.Keys(t.sets)) {
		s := t.sets[name]
		if name != ingress && name != egress && name != itself {
			for i := range b {
				b[i].AddSets = append(b[i].AddSets, Set{name, s.kind})
			}
			t.touched[name] = true
		}
		for k, chain := range s.elements {
			f := &b[family(k.Addr)]
			f.AddElements = append(f.AddElements, Element{name, k, chain})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.chains)) {
		for i := range b {
			b[i].AddChains = append(b[i].AddChains, name)
			b[i].Rules = append(b[i].Rules, Chain{name, t.chains[name].rules})
		}
		t.rewrite[name] = true
	}
	b[0].sort()
	b[1].sort()
	return b
}

func (t *table) changes() (b [2]Batch) {
	for p, had := range t.elements {
		f := &b[family(p.key.Addr)]
		s := t.sets[p.set]
		if s.gone {
			continue // its elements are deleted with it
		}
		want, wanted := s.elements[p.key]
		if had != nil && wanted && *had == want {
			continue
		}
		if had != nil && s.there {
			f.DeleteElements = append(f.DeleteElements, Element{p.set, p.key, *had})
		}
		if wanted {
			f.AddElements = append(f.AddElements, Element{p.set, p.key, want})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.touched)) {
		s := t.sets[name]
		for i := range b {
			switch {
			case s.gone && s.there:
				b[i].DeleteSets = append(b[i].DeleteSets, name)
			case !s.gone && !s.there:
				b[i].AddSets = append(b[i].AddSets, Set{name, s.kind})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.rewrite)) {
		c := t.chains[name]
		for i := range b {
			switch {
			case c.gone && c.exists:
				b[i].DeleteChains = append(b[i].DeleteChains, name)
			case c.gone:
			case !c.exists:
				b[i].AddChains = append(b[i].AddChains, name)
				fallthrough
			case !slices.Equal(c.there, c.rules):
				b[i].Rules = append(b[i].Rules, Chain{name, c.rules})
			}
		}
	}
	b[0].sort()
	b[1].sort()
	return b
}

// sort sorts the elements, so that those of a set are consecutive.
func (b *Batch) sort() {
	for _, list := range [][]Element{b.DeleteElements, b.AddElements} {
		slices.SortFunc(list, func(x, y Element) int {
			return cmp.Or(cmp.Compare(x.Set, y.Set), x.Key.Addr.Compare(y.Key.Addr), cmp.Compare(x.Key.Port, y.Key.Port))
		})
	}
}
