package policy

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/network/nft/nfttest"
)

// fake is a Kernel that models the table, and evaluates packets by it.
type fake struct {
	nfttest.Table[Key, string, Rule]
	kinds map[string]Kind
	last  Batch
}

func (f *fake) Replace(b *Batch) error {
	f.Reset([]string{ingress, egress, itself}, nil)
	f.kinds = map[string]Kind{ingress: Addresses, egress: Addresses, itself: Addresses}
	return f.Write(b)
}

func (f *fake) Write(b *Batch) error {
	if err := f.Commit(func() {
		f.last = *b
		for _, x := range b.DeleteElements {
			f.Delete(x.Set, x.Key, x.Chain)
		}
		for _, s := range b.AddSets {
			f.AddSet(s.Name)
			f.kinds[s.Name] = s.Kind
		}
		for _, c := range b.AddChains {
			f.AddChain(c)
		}
		for _, c := range b.DeleteChains {
			f.SetRules(c, nil)
		}
		for _, c := range b.Rules {
			f.SetRules(c.Name, c.Rules)
		}
		for _, x := range b.AddElements {
			f.Add(x.Set, x.Key, x.Chain)
		}
		for _, c := range b.DeleteChains {
			f.DeleteChain(c)
		}
		for _, s := range b.DeleteSets {
			f.DeleteSet(s)
			delete(f.kinds, s)
		}
	}); err != nil {
		return err
	}
	return f.Check(func(chain string) string { return chain }, func(r Rule) (chains, sets []string) {
		return []string{r.Chain}, []string{r.Source, r.Destination, r.Named}
	})
}

// packet is the first one of a connection.
type packet struct {
	from, to netip.Addr
	proto    v1.Protocol
	port     uint16
}

// forwards reports whether the packet passes.
func (f *fake) forwards(p packet) bool {
	if f.Chains == nil || p.from == p.to {
		return true
	}
	for _, at := range []struct {
		set  string
		addr netip.Addr
	}{{egress, p.from}, {ingress, p.to}} {
		if chain, ok := f.Sets[at.set][Key{Addr: at.addr}]; ok {
			if do, ended := f.walk(chain, p); ended && do == Drop {
				return false
			}
		}
	}
	return true
}

func (f *fake) walk(chain string, p packet) (do Action, ended bool) {
	for _, r := range f.Chains[chain] {
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
		_, ok := f.Sets[set][Key{Addr: a, Port: port}]
		return ok
	}
	// The last mark at or before the address decides.
	var best Key
	for k := range f.Sets[set] {
		if !a.Less(k.Addr) && k.Addr.Is4() == a.Is4() && (!best.Addr.IsValid() || best.Addr.Less(k.Addr) || best.Addr == k.Addr && best.End) {
			best = k
		}
	}
	return best.Addr.IsValid() && !best.End
}
