package topology

// Hint is a set of NUMA nodes that a resource could be given on.
type Hint struct {
	// Nodes is the set; zero stands for any nodes.
	Nodes Mask
	// Preferred reports whether no smaller set could ever hold as much of the resource.
	Preferred bool
}

// merger merges the hints of all providers for one container or pod.
type merger struct {
	all Mask
	// closest compares sets of as many nodes by the distances between them; nil does not.
	closest func(Mask) float64
}

// filter returns the lists of hints of which one each has to be chosen, one list for each
// resource that any provider has a say in.
func filter(from []map[string][]Hint) [][]Hint {
	indifferent := []Hint{{Preferred: true}}
	var out [][]Hint
	for _, provider := range from {
		if len(provider) == 0 {
			out = append(out, indifferent)
			continue
		}
		for _, hints := range provider {
			switch {
			case hints == nil:
				out = append(out, indifferent)
			case len(hints) == 0: // there is no way to give it
				out = append(out, []Hint{{}})
			default:
				out = append(out, hints)
			}
		}
	}
	return out
}

// merge chooses one hint of each list such that their nodes in common are the best.
func (m *merger) merge(lists [][]Hint) Hint {
	least := 0 // nodes that are needed by the resource that needs most of them
	for _, l := range lists {
		n := 0
		for _, h := range l {
			if c := h.Nodes.Count(); c > 0 && (n == 0 || c < n) {
				n = c
			}
		}
		least = max(least, n)
	}
	var best *Hint
	chosen := make([]Hint, len(lists))
	var choose func(i int)
	choose = func(i int) {
		if i < len(lists) {
			for _, h := range lists[i] {
				chosen[i] = h
				choose(i + 1)
			}
			return
		}
		if h := m.combine(chosen); h.Nodes != 0 && (best == nil || m.better(h, *best, least)) {
			best = &h
		}
	}
	choose(0)
	if best == nil {
		return Hint{Nodes: m.all}
	}
	return *best
}

// combine returns the nodes that the hints have in common. These are preferred if each
// hint is, and all of those that name nodes name the same.
func (m *merger) combine(hints []Hint) Hint {
	out := Hint{Nodes: m.all, Preferred: true}
	first := Mask(0)
	for _, h := range hints {
		if h.Nodes != 0 {
			if first == 0 {
				first = h.Nodes
			}
			out.Preferred = out.Preferred && h.Nodes == first
			out.Nodes &= h.Nodes
		}
		out.Preferred = out.Preferred && h.Preferred
	}
	return out
}

// better reports whether a is to be taken in place of b. Of two that are not preferred
// the one is whose size is nearest to least, from below.
func (m *merger) better(a, b Hint, least int) bool {
	if a.Preferred != b.Preferred {
		return a.Preferred
	}
	na, nb := a.Nodes.Count(), b.Nodes.Count()
	switch {
	case a.Preferred || nb > least:
	case nb == least:
		if na != nb {
			return false
		}
	case na > least:
		return false
	case na != nb:
		return na > nb
	}
	return m.tighter(a.Nodes, b.Nodes)
}

// tighter reports whether the nodes of a are fewer, or closer together where that
// counts.
func (m *merger) tighter(a, b Mask) bool {
	if a != b && m.closest != nil && a.Count() == b.Count() {
		if x, y := m.closest(a), m.closest(b); x != y {
			return x < y
		}
	}
	return a.narrower(b)
}
