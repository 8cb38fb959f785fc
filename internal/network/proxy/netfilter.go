package proxy

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/internal/network/nft"
)

// tableName is the name of the kernel's table, in each family.
const tableName = "keelson-proxy"

// affinityMax bounds the number of clients whose affinity is remembered per port
// of a Service. Further clients have no affinity.
const affinityMax = 1 << 20

// netfilter is the kernel's table of one family.
type netfilter struct {
	nft.Table
	// pods are the ranges of this node's pods, of the family.
	pods []netip.Prefix
}

// NewNetfilter returns the kernel's table for IPv4 or IPv6 in this process's
// network namespace. pods are the ranges of this node's pods, whose packets to
// cluster addresses keep their source.
func NewNetfilter(ipv6 bool, pods []netip.Prefix) Kernel {
	k := &netfilter{Table: nft.Table{Family: nft.IPv4, Name: tableName}}
	if ipv6 {
		k.Family = nft.IPv6
	}
	for _, p := range pods {
		if p.Addr().Is4() != ipv6 {
			k.pods = append(k.pods, p.Masked())
		}
	}
	return k
}

// bases returns the base chains, and the chain that rejects.
func (k *netfilter) bases() []nft.Chain {
	// The address, the protocol and the port of the destination.
	key := func(exprs ...nft.Expr) []nft.Expr {
		return append(exprs, k.Family.Destination(nft.Reg(0)), nft.Protocol(nft.Reg(k.Family.Words())), nft.DestinationPort(nft.Reg(k.Family.Words()+1)))
	}
	follow := [][]nft.Expr{append(key(), nft.Follow(services, nft.Reg(0)))}
	guarded := [][]nft.Expr{append(key(nft.Beginning()...), nft.Follow(firewall, nft.Reg(0)))}
	refuse := append(key(nft.Beginning()...), nft.Follow(unserved, nft.Reg(0)))
	// Ports that the Service of a cluster address does not have are rejected.
	unknown := append(nft.Beginning(), k.Family.Destination(nft.Reg(0)), nft.In(clusterIPs, nft.Reg(0)), nft.Do(nft.Goto, reject))
	itself := append(nft.Translated(), k.Family.Source(nft.Reg(0)), k.Family.Destination(nft.Reg(k.Family.Words())), nft.In(hairpin, nft.Reg(0)), nft.Masquerade())
	// A packet of another program may have the mark as well.
	marked := slices.Concat(nft.Translated(), []nft.Expr{nft.Mark(nft.Reg(0)), nft.Bits(nft.Reg(0), masqueradeMark)}, nft.AddMark(0, masqueradeMark), []nft.Expr{nft.Masquerade()})
	return []nft.Chain{
		{Name: reject, Rules: [][]nft.Expr{{k.Family.Reject()}}},
		{Name: "prerouting-filter", Hook: &nft.Hook{Type: "filter", Number: unix.NF_INET_PRE_ROUTING, Priority: -110}, Rules: guarded},
		{Name: "output-before", Hook: &nft.Hook{Type: "filter", Number: unix.NF_INET_LOCAL_OUT, Priority: -110}, Rules: guarded},
		{Name: "prerouting", Hook: &nft.Hook{Type: "nat", Number: unix.NF_INET_PRE_ROUTING, Priority: -100}, Rules: follow},
		{Name: "output", Hook: &nft.Hook{Type: "nat", Number: unix.NF_INET_LOCAL_OUT, Priority: -100}, Rules: follow},
		{Name: "input-filter", Hook: &nft.Hook{Type: "filter", Number: unix.NF_INET_LOCAL_IN}, Rules: [][]nft.Expr{refuse}},
		{Name: "forward-filter", Hook: &nft.Hook{Type: "filter", Number: unix.NF_INET_FORWARD}, Rules: [][]nft.Expr{refuse, unknown}},
		{Name: "output-filter", Hook: &nft.Hook{Type: "filter", Number: unix.NF_INET_LOCAL_OUT}, Rules: [][]nft.Expr{refuse, unknown}},
		{Name: "postrouting", Hook: &nft.Hook{Type: "nat", Number: unix.NF_INET_POST_ROUTING, Priority: 100}, Rules: [][]nft.Expr{marked, itself}},
	}
}

// Replace implements Kernel.
func (k *netfilter) Replace(b *Batch) error {
	kept, err := k.kept(b.AddAffinity)
	if err != nil {
		return err
	}
	t := k.BeginNew()
	addr := k.Family.Address()
	key := []nft.Type{addr, nft.Proto, nft.Port}
	for _, name := range []string{services, unserved, firewall} {
		t.AddSet(nft.Set{Name: name, Key: key, Verdicts: true})
	}
	for i := range spread {
		t.AddSet(nft.Set{Name: setOfEndpoints(i), Key: []nft.Type{nft.MarkType}, Value: []nft.Type{addr, nft.Port}})
	}
	t.AddSet(nft.Set{Name: clusterIPs, Key: []nft.Type{addr}})
	t.AddSet(nft.Set{Name: hairpin, Key: []nft.Type{addr, addr}})
	t.AddChains(k.bases())
	k.add(t, b)
	for set, all := range kept {
		for _, x := range all {
			t.AddElement(set, x)
		}
	}
	return k.Commit(t, true)
}

// kept returns the elements of the affinity maps that exist and are wanted.
func (k *netfilter) kept(wanted []string) (map[string][]nft.Element, error) {
	have, err := nft.Sets(k.Family, tableName)
	if err != nil {
		return nil, err
	}
	want := map[string]bool{}
	for _, n := range wanted {
		want[n] = true
	}
	out := map[string][]nft.Element{}
	for _, n := range have {
		if want[n] {
			if out[n], err = nft.Elements(k.Family, tableName, n); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Write implements Kernel.
func (k *netfilter) Write(b *Batch) error {
	t := k.Begin()
	for _, x := range b.DeleteElements {
		t.DeleteElement(x.Set, k.element(x))
	}
	k.add(t, b)
	for _, c := range b.DeleteChains {
		t.DeleteChain(c)
	}
	for _, s := range b.DeleteSets {
		t.DeleteSet(s)
	}
	return k.Commit(t, false)
}

// add appends the additions of the batch, and the flushes of the chains that it
// deletes.
func (k *netfilter) add(t *nft.Tx, b *Batch) {
	addr := k.Family.Address()
	for _, s := range b.AddAffinity {
		t.AddSet(nft.Set{Name: s, Key: []nft.Type{addr}, Value: []nft.Type{addr, nft.Port}, Dynamic: true, Size: affinityMax})
	}
	for _, s := range b.AddLive {
		t.AddSet(nft.Set{Name: s, Key: []nft.Type{addr, nft.Port}})
	}
	fresh := make(map[string]bool, len(b.AddChains))
	for _, c := range b.AddChains {
		fresh[c] = true
		t.AddChain(c, nil)
	}
	for _, c := range b.DeleteChains {
		t.FlushChain(c)
	}
	for _, c := range b.Rules {
		if !fresh[c.Name] {
			t.FlushChain(c.Name)
		}
	}
	// Elements come before the rules that use their maps: the kernel visits these
	// rules for each element that is added.
	for _, x := range b.AddElements {
		t.AddElement(x.Set, k.element(x))
	}
	for _, c := range b.Rules {
		for i := range c.Rules {
			for _, exprs := range k.rules(&c.Rules[i]) {
				t.AddRule(c.Name, exprs...)
			}
		}
	}
}

// rules encodes a rule, FromPods as one rule for each range.
func (k *netfilter) rules(r *Rule) [][]nft.Expr {
	var do []nft.Expr
	source, value := nft.Reg(0), nft.Reg(4)
	switch r.Do {
	case Mark:
		do = nft.AddMark(masqueradeMark, 0)
	case Goto:
		do = []nft.Expr{nft.Do(nft.Goto, r.Chain)}
	case Return:
		do = []nft.Expr{nft.Do(nft.Return, "")}
	case Drop:
		do = []nft.Expr{nft.Do(nft.Drop, "")}
	case Balance:
		do = []nft.Expr{nft.Random(source, r.First, r.N), nft.Get(r.Set, source, value)}
		if r.Affinity != "" {
			do = append(do, k.Family.Source(source), nft.Remember(r.Affinity, source, value, r.Timeout))
		}
		do = append(do, k.to(value))
	case Stick:
		do = []nft.Expr{k.Family.Source(source), nft.Get(r.Affinity, source, value), nft.In(r.Live, value),
			nft.Remember(r.Affinity, source, value, r.Timeout), k.to(value)}
	}
	switch r.When {
	case FromPods:
		var out [][]nft.Expr
		for _, p := range k.pods {
			out = append(out, append(k.within(p, false), do...))
		}
		return out
	case NotFromPods:
		if len(k.pods) == 0 {
			return nil // the ranges are unknown
		}
		var when []nft.Expr
		for _, p := range k.pods {
			when = append(when, k.within(p, true)...)
		}
		return [][]nft.Expr{append(when, do...)}
	case FromLocal:
		return [][]nft.Expr{append(nft.FromLocal(), do...)}
	case FromRange:
		return [][]nft.Expr{append(k.within(r.Range, false), do...)}
	}
	return [][]nft.Expr{do}
}

func (k *netfilter) to(reg uint32) nft.Expr {
	return k.Family.To(reg, reg+uint32(k.Family.Words()))
}

func (k *netfilter) within(p netip.Prefix, outside bool) []nft.Expr {
	return append([]nft.Expr{k.Family.Source(nft.Reg(0))}, nft.Within(nft.Reg(0), nft.Mask(p.Bits(), p.Addr().BitLen()/8), p.Masked().Addr().AsSlice(), outside)...)
}

// element encodes an element by its set.
func (k *netfilter) element(x Element) nft.Element {
	out := nft.Element{}
	switch x.Set {
	case services, unserved, firewall:
		out.Key = append(append(x.Key.Addr.AsSlice(), nft.ProtocolNumber(string(x.Key.Proto)), 0, 0, 0), port(x.Key.Port)...)
		if x.Value.Chain == "" {
			out.Verdict = &nft.Verdict{Code: nft.Drop}
		} else {
			out.Verdict = &nft.Verdict{Code: nft.Goto, Chain: x.Value.Chain}
		}
	case clusterIPs:
		out.Key = x.Key.Addr.AsSlice()
	case hairpin:
		out.Key = append(x.Key.Addr.AsSlice(), x.Key.Addr.AsSlice()...)
	default:
		if !x.Value.Endpoint.IsValid() { // an element of a set Live
			out.Key = append(x.Key.Addr.AsSlice(), port(x.Key.Port)...)
			break
		}
		out.Key = binary.NativeEndian.AppendUint32(nil, x.Key.Number)
		out.Value = append(x.Value.Endpoint.Addr().AsSlice(), port(x.Value.Endpoint.Port())...)
	}
	return out
}

// port encodes a port for a register.
func port(n uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, n), 0, 0) }

// Intact implements Kernel.
func (k *netfilter) Intact() (bool, error) { return k.Table.Intact(k.bases()) }
