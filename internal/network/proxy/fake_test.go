package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
)

// fake is a Kernel that refuses what the kernel would refuse, and that packets
// can be sent through.
type fake struct {
	pods     []netip.Prefix
	local    []netip.Addr // addresses of the machine
	chains   map[string][]Rule
	elements map[string]map[Key]Value
	affinity map[string]map[netip.Addr]netip.AddrPort
	writes   int
	changes  int // elements and chains of the last write
	fail     error
	gone     bool // others took it away
}

func (f *fake) Replace(b *Batch) error {
	kept := f.affinity
	f.chains, f.elements, f.affinity = map[string][]Rule{reject: nil}, map[string]map[Key]Value{}, map[string]map[netip.Addr]netip.AddrPort{}
	for _, s := range []string{services, unserved, firewall, clusterIPs, hairpin} {
		f.elements[s] = map[Key]Value{}
	}
	for i := range spread {
		f.elements[setOfEndpoints(i)] = map[Key]Value{}
	}
	f.gone = false
	err := f.Write(b)
	for s := range f.affinity {
		maps.Copy(f.affinity[s], kept[s])
	}
	return err
}

func (f *fake) Write(b *Batch) error {
	if f.fail != nil {
		return f.fail
	}
	if f.gone || f.chains == nil {
		return fmt.Errorf("no such table")
	}
	f.writes++
	f.changes = len(b.DeleteElements) + len(b.AddElements) + len(b.Rules)
	for _, x := range b.DeleteElements {
		if v, ok := f.elements[x.Set][x.Key]; !ok || v != x.Value {
			return fmt.Errorf("delete %+v: there is %+v", x, v)
		}
		delete(f.elements[x.Set], x.Key)
	}
	for _, s := range b.AddAffinity {
		if f.affinity[s] != nil {
			return fmt.Errorf("add map %s: it exists", s)
		}
		f.affinity[s] = map[netip.Addr]netip.AddrPort{}
	}
	for _, s := range b.AddLive {
		if f.elements[s] != nil {
			return fmt.Errorf("add set %s: it exists", s)
		}
		f.elements[s] = map[Key]Value{}
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
			return fmt.Errorf("add %+v: there is %+v", x, v)
		}
		f.elements[x.Set][x.Key] = x.Value
	}
	for _, c := range b.DeleteChains {
		delete(f.chains, c)
	}
	for _, s := range b.DeleteSets {
		delete(f.elements, s)
		delete(f.affinity, s)
	}
	return f.whole()
}

// whole returns an error for references to chains, sets or maps that do not
// exist.
func (f *fake) whole() error {
	for s, all := range f.elements {
		for k, v := range all {
			if _, there := f.chains[v.Chain]; v.Chain != "" && !there {
				return fmt.Errorf("%s %+v leads to chain %s, which is not there", s, k, v.Chain)
			}
		}
	}
	for name, rules := range f.chains {
		for _, r := range rules {
			if _, there := f.chains[r.Chain]; r.Do == Goto && !there {
				return fmt.Errorf("chain %s leads to %s, which is not there", name, r.Chain)
			}
			if r.Live != "" && f.elements[r.Live] == nil || r.Affinity != "" && f.affinity[r.Affinity] == nil {
				return fmt.Errorf("chain %s uses a set that is not there: %+v", name, r)
			}
			for i := range r.N {
				if _, there := f.elements[r.Set][Key{Number: r.First + i}]; !there {
					return fmt.Errorf("chain %s: no endpoint %d of %+v", name, i, r)
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

// outcome is the fate of a packet.
type outcome struct {
	// to are the endpoints that it may be sent to; none: it goes on as it is.
	to     []netip.AddrPort
	masq   bool
	reject bool
	drop   bool
}

// packet sends the first packet of a connection.
func (f *fake) packet(from, to string, port uint16, proto v1.Protocol) outcome {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	k := Key{Addr: dst, Proto: proto, Port: port}
	var o outcome
	if v, ok := f.elements[firewall][k]; ok {
		if f.walk(v.Chain, src, &o); o.drop {
			return o
		}
	}
	if v, ok := f.elements[services][k]; ok {
		f.walk(v.Chain, src, &o)
	}
	slices.SortFunc(o.to, netip.AddrPort.Compare)
	if len(o.to) > 0 {
		return o
	}
	o.masq = false
	if v, ok := f.elements[unserved][k]; ok {
		o.drop, o.reject = v.Chain == "", v.Chain == reject
	} else if _, ok := f.elements[clusterIPs][Key{Addr: dst}]; ok {
		o.reject = true
	}
	return o
}

func (f *fake) walk(chain string, src netip.Addr, o *outcome) {
	for _, r := range f.chains[chain] {
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
				if _, live := f.elements[r.Live][Key{Addr: to.Addr(), Port: to.Port()}]; live {
					o.to = []netip.AddrPort{to}
					return
				}
			}
		case Balance:
			for i := range r.N {
				o.to = append(o.to, f.elements[r.Set][Key{Number: r.First + i}].Endpoint)
			}
			if r.Affinity != "" {
				f.affinity[r.Affinity][src] = o.to[0]
			}
			return
		}
	}
}
