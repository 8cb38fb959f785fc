package policy

import (
	"fmt"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
)

// fake is a Kernel that refuses what the kernel would refuse, and that packets can
// be sent through.
type fake struct {
	kinds    map[string]Kind
	elements map[string]map[Key]string
	chains   map[string][]Rule
	last     Batch
	writes   int
	replaced int
	fail     error
	gone     bool // others took it away
}

func (f *fake) Replace(b *Batch) error {
	f.kinds, f.chains = map[string]Kind{ingress: Addresses, egress: Addresses, itself: Addresses}, map[string][]Rule{}
	f.elements = map[string]map[Key]string{ingress: {}, egress: {}, itself: {}}
	f.gone = false
	f.replaced++
	return f.Write(b)
}

func (f *fake) Write(b *Batch) error {
	if f.fail != nil {
		return f.fail
	}
	if f.gone || f.chains == nil {
		return fmt.Errorf("no such table")
	}
	f.writes++
	f.last = *b
	for _, x := range b.DeleteElements {
		if v, ok := f.elements[x.Set][x.Key]; !ok || v != x.Chain {
			return fmt.Errorf("delete %+v: there is %q", x, v)
		}
		delete(f.elements[x.Set], x.Key)
	}
	for _, s := range b.AddSets {
		if f.elements[s.Name] != nil {
			return fmt.Errorf("add set %s: it exists", s.Name)
		}
		f.elements[s.Name], f.kinds[s.Name] = map[Key]string{}, s.Kind
	}
	for _, c := range b.AddChains {
		if _, there := f.chains[c]; there {
			return fmt.Errorf("add chain %s: it exists", c)
		}
		f.chains[c] = nil
	}
	for _, c := range b.DeleteChains {
		f.chains[c] = nil // flushed before it is deleted
	}
	for _, c := range b.Rules {
		if _, there := f.chains[c.Name]; !there {
			return fmt.Errorf("rules of chain %s: no such chain", c.Name)
		}
		f.chains[c.Name] = slices.Clone(c.Rules)
	}
	for _, x := range b.AddElements {
		if f.elements[x.Set] == nil {
			return fmt.Errorf("add %+v: no such set", x)
		}
		if v, there := f.elements[x.Set][x.Key]; there {
			return fmt.Errorf("add %+v: there is %q", x, v)
		}
		f.elements[x.Set][x.Key] = x.Chain
	}
	for _, c := range b.DeleteChains {
		delete(f.chains, c)
	}
	for _, s := range b.DeleteSets {
		if f.elements[s] == nil {
			return fmt.Errorf("delete set %s: no such set", s)
		}
		delete(f.elements, s)
		delete(f.kinds, s)
	}
	return f.whole()
}

// whole returns an error for references to chains or sets that do not exist.
func (f *fake) whole() error {
	for s, all := range f.elements {
		for k, chain := range all {
			if _, there := f.chains[chain]; chain != "" && !there {
				return fmt.Errorf("%s %+v leads to chain %s, which is not there", s, k, chain)
			}
		}
	}
	for name, rules := range f.chains {
		for _, r := range rules {
			if _, there := f.chains[r.Chain]; r.Do == Jump && !there {
				return fmt.Errorf("chain %s leads to %s, which is not there", name, r.Chain)
			}
			for _, s := range []string{r.Source, r.Destination, r.Named} {
				if s != "" && f.elements[s] == nil {
					return fmt.Errorf("chain %s uses the set %s, which is not there", name, s)
				}
			}
		}
	}
	return nil
}

func (f *fake) Intact() (bool, error) { return !f.gone, nil }

func (f *fake) Remove() error {
	f.chains, f.elements = nil, nil
	return nil
}

// packet is the first one of a connection.
type packet struct {
	from, to netip.Addr
	proto    v1.Protocol
	port     uint16
}

// forwards reports whether the packet passes.
func (f *fake) forwards(p packet) bool {
	if f.chains == nil || p.from == p.to {
		return true
	}
	for _, at := range []struct {
		set  string
		addr netip.Addr
	}{{egress, p.from}, {ingress, p.to}} {
		if chain, ok := f.elements[at.set][Key{Addr: at.addr}]; ok {
			if do, ended := f.walk(chain, p); ended && do == Drop {
				return false
			}
		}
	}
	return true
}

func (f *fake) walk(chain string, p packet) (do Action, ended bool) {
	for _, r := range f.chains[chain] {
		if r.Source != "" && !f.contains(r.Source, p.from, 0) || r.Destination != "" && !f.contains(r.Destination, p.to, 0) ||
			r.Proto != "" && r.Proto != p.proto || r.First != 0 && (p.port < r.First || r.Last < p.port) ||
			r.Named != "" && !f.contains(r.Named, p.to, p.port) {
			continue
		}
		if r.Do != Jump {
			return r.Do, true
		}
		if do, ended := f.walk(r.Chain, p); ended {
			return do, true
		}
	}
	return 0, false
}

func (f *fake) contains(set string, a netip.Addr, port uint16) bool {
	if f.kinds[set] != Ranges {
		_, ok := f.elements[set][Key{Addr: a, Port: port}]
		return ok
	}
	// The last mark at or before the address says.
	var best Key
	for k := range f.elements[set] {
		if !a.Less(k.Addr) && k.Addr.Is4() == a.Is4() && (!best.Addr.IsValid() || best.Addr.Less(k.Addr) || best.Addr == k.Addr && best.End) {
			best = k
		}
	}
	return best.Addr.IsValid() && !best.End
}
