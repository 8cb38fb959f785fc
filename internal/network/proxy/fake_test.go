package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/network/nft/nfttest"
)

// fake is a Kernel that models the table, and sends packets through it.
type fake struct {
	nfttest.Table[Key, Value, Rule]
	pods     []netip.Prefix
	local    []netip.Addr // addresses of the machine
	affinity map[string]map[netip.Addr]netip.AddrPort
}

func (f *fake) Replace(b *Batch) error {
	sets := []string{services, unserved, firewall, clusterIPs, hairpin}
	for i := range spread {
		sets = append(sets, setOfEndpoints(i))
	}
	f.Reset(sets, []string{reject})
	kept := f.affinity
	f.affinity = map[string]map[netip.Addr]netip.AddrPort{}
	err := f.Write(b)
	for s := range f.affinity {
		maps.Copy(f.affinity[s], kept[s])
	}
	return err
}

func (f *fake) Write(b *Batch) error {
	if err := f.Commit(func() {
		for _, x := range b.DeleteElements {
			f.Delete(x.Set, x.Key, x.Value)
		}
		for _, s := range b.AddAffinity {
			f.AddSet(s)
			f.affinity[s] = map[netip.Addr]netip.AddrPort{}
		}
		for _, s := range b.AddLive {
			f.AddSet(s)
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
			f.Add(x.Set, x.Key, x.Value)
		}
		for _, c := range b.DeleteChains {
			f.DeleteChain(c)
		}
		for _, s := range b.DeleteSets {
			f.DeleteSet(s)
			delete(f.affinity, s)
		}
	}); err != nil {
		return err
	}
	for name, rules := range f.Chains {
		for _, r := range rules {
			for i := range r.N {
				if _, exists := f.Sets[r.Set][Key{Number: r.First + i}]; !exists {
					return fmt.Errorf("chain %s: no endpoint %d of %+v", name, i, r)
				}
			}
		}
	}
	return f.Check(func(v Value) string { return v.Chain }, func(r Rule) (chains, sets []string) {
		return []string{r.Chain}, []string{r.Live, r.Affinity}
	})
}

// outcome is the fate of a packet.
type outcome struct {
	// to are the endpoints that it may be sent to; none means that it is not translated.
	to     []netip.AddrPort
	masq   bool
	reject bool
	drop   bool
}

// arrives checks where packets of TCP from outside come to, by the addresses that they are for.
func (f *fake) arrives(t *testing.T, when string, want map[string]string) {
	t.Helper()
	for to, want := range want {
		at := netip.MustParseAddrPort(to)
		if got := f.packet(outside, at.Addr().String(), at.Port(), v1.ProtocolTCP).in(); got != want {
			t.Errorf("%s, to %s: %q, want %q", when, to, got, want)
		}
	}
}

// packet sends the first packet of a connection.
func (f *fake) packet(from, to string, port uint16, proto v1.Protocol) outcome {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	k := Key{Addr: dst, Proto: proto, Port: port}
	var o outcome
	if v, ok := f.Sets[firewall][k]; ok {
		if f.walk(v.Chain, src, &o); o.drop {
			return o
		}
	}
	if v, ok := f.Sets[services][k]; ok {
		f.walk(v.Chain, src, &o)
	}
	slices.SortFunc(o.to, netip.AddrPort.Compare)
	if len(o.to) > 0 {
		return o
	}
	o.masq = false
	if v, ok := f.Sets[unserved][k]; ok {
		o.drop, o.reject = v.Chain == "", v.Chain == reject
	} else if _, ok := f.Sets[clusterIPs][Key{Addr: dst}]; ok {
		o.reject = true
	}
	return o
}

func (f *fake) walk(chain string, src netip.Addr, o *outcome) {
	for _, r := range f.Chains[chain] {
		pod := slices.ContainsFunc(f.pods, func(p netip.Prefix) bool { return p.Contains(src) })
		switch r.When {
		case FromPods:
			if !pod {
				continue
			}
		case NotFromPods:
			if pod {
				continue
			}
		case FromLocal:
			if !slices.Contains(f.local, src) {
				continue
			}
		case FromRange:
			if !r.Range.Contains(src) {
				continue
			}
		}
		switch r.Do {
		case Mark:
			o.masq = true
		case Goto:
			f.walk(r.Chain, src, o)
			return
		case Return:
			return
		case Drop:
			o.drop = true
			return
		case Stick:
			if to, ok := f.affinity[r.Affinity][src]; ok {
				if _, live := f.Sets[r.Live][Key{Addr: to.Addr(), Port: to.Port()}]; live {
					o.to = []netip.AddrPort{to}
					return
				}
			}
		case Balance:
			for i := range r.N {
				o.to = append(o.to, f.Sets[r.Set][Key{Number: r.First + i}].Endpoint)
			}
			if r.Affinity != "" {
				f.affinity[r.Affinity][src] = o.to[0]
			}
			return
		}
	}
}
