package policy

import (
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/internal/network/nft"
)

// tableName is the name of the kernel's table, in each family.
const tableName = "keelson-policy"

// netfilter is the kernel's table of one family.
type netfilter struct {
	nft.Table
	// links are the bridges of isolated pods, as of the last Replace.
	links []string
}

// NewNetfilter returns the kernel's table for IPv4 or IPv6 in this process's network
// namespace.
func NewNetfilter(ipv6 bool) Kernel {
	family := nft.IPv4
	if ipv6 {
		family = nft.IPv6
	}
	return &netfilter{Table: nft.Table{Family: family, Name: tableName}}
}

// firstDiscovery and lastDiscovery bound the types of ICMPv6 that find neighbours
// and routers: without them no address can be reached.
const firstDiscovery, lastDiscovery = 133, 137

// bases returns the base chains. Packets that the first one accepts still traverse
// the second one. Both come after the service proxy's chains, which reject packets
// to Services without endpoints. The kernel passes bridged packets of all bridges of the
// machine: what is dropped without regard to an address is so on the pods' bridges only.
func (k *netfilter) bases() []nft.Chain {
	accept := nft.Do(nft.Accept, "")
	var always [][]nft.Expr
	if k.Family == nft.IPv6 {
		discovery := append([]nft.Expr{nft.Protocol(nft.Reg(0)), nft.Equal(nft.Reg(0), []byte{unix.IPPROTO_ICMPV6}), nft.ICMPType(nft.Reg(0))},
			append(nft.Between(nft.Reg(0), []byte{firstDiscovery}, []byte{lastDiscovery}), accept)...)
		always = [][]nft.Expr{discovery}
	}
	always = append([][]nft.Expr{append(nft.Related(), accept), append(nft.Answers(), accept)}, always...)
	always = append(always, []nft.Expr{k.Family.Source(nft.Reg(0)), k.Family.Destination(nft.Reg(k.Family.Words())), nft.In(itself, nft.Reg(0)), accept})
	inward := slices.Clone(always)
	for _, name := range k.links {
		// The address of a packet to many does not say which pods of the bridge get it.
		inward = append(inward, append(append(nft.ToLink(name), nft.ToMany()...), nft.Do(nft.Drop, "")))
		if k.Family == nft.IPv6 {
			// Pods of one bridge have link-local addresses, which no policy selects.
			inward = append(inward, append(append(nft.ToLink(name), k.Family.Destination(nft.Reg(0))),
				append(nft.Within(nft.Reg(0), nft.Mask(10, 16), linkLocal, false), nft.Do(nft.Drop, ""))...))
		}
	}
	return []nft.Chain{
		{Name: "egress", Hook: &nft.Hook{Type: "filter", Number: unix.NF_INET_FORWARD, Priority: 10},
			Rules: append(slices.Clone(always), []nft.Expr{k.Family.Source(nft.Reg(0)), nft.Follow(egress, nft.Reg(0))})},
		{Name: "ingress", Hook: &nft.Hook{Type: "filter", Number: unix.NF_INET_FORWARD, Priority: 11},
			Rules: append(inward, []nft.Expr{k.Family.Destination(nft.Reg(0)), nft.Follow(ingress, nft.Reg(0))})},
	}
}

// linkLocal is the range fe80::/10.
var linkLocal = append([]byte{0xfe, 0x80}, make([]byte, 14)...)

// Replace implements Kernel.
func (k *netfilter) Replace(b *Batch) error {
	k.links = b.Links
	t := k.BeginNew()
	addr := k.Family.Address()
	t.AddSet(nft.Set{Name: ingress, Key: []nft.Type{addr}, Verdicts: true})
	t.AddSet(nft.Set{Name: egress, Key: []nft.Type{addr}, Verdicts: true})
	t.AddSet(nft.Set{Name: itself, Key: []nft.Type{addr, addr}})
	k.add(t, b)
	t.AddChains(k.bases())
	return k.Commit(t, true)
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
	for _, s := range b.AddSets {
		switch s.Kind {
		case Addresses:
			t.AddSet(nft.Set{Name: s.Name, Key: []nft.Type{addr}})
		case Ranges:
			t.AddSet(nft.Set{Name: s.Name, Key: []nft.Type{addr}, Intervals: true})
		case Ports:
			t.AddSet(nft.Set{Name: s.Name, Key: []nft.Type{addr, nft.Port}})
		}
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
	for _, x := range b.AddElements {
		t.AddElement(x.Set, k.element(x))
	}
	for _, c := range b.Rules {
		for i := range c.Rules {
			t.AddRule(c.Name, k.rule(&c.Rules[i])...)
		}
	}
}

// rule encodes a rule.
func (k *netfilter) rule(r *Rule) (out []nft.Expr) {
	if r.Source != "" {
		out = append(out, k.Family.Source(nft.Reg(0)), nft.In(r.Source, nft.Reg(0)))
	}
	if r.Destination != "" {
		out = append(out, k.Family.Destination(nft.Reg(0)), nft.In(r.Destination, nft.Reg(0)))
	}
	if r.Proto != "" {
		out = append(out, nft.Protocol(nft.Reg(0)), nft.Equal(nft.Reg(0), []byte{nft.ProtocolNumber(string(r.Proto))}))
	}
	switch {
	case r.Named != "":
		out = append(out, k.Family.Destination(nft.Reg(0)), nft.DestinationPort(nft.Reg(k.Family.Words())), nft.In(r.Named, nft.Reg(0)))
	case r.First != 0 && r.First == r.Last:
		out = append(out, nft.DestinationPort(nft.Reg(0)), nft.Equal(nft.Reg(0), number(r.First)))
	case r.First != 0:
		out = append(append(out, nft.DestinationPort(nft.Reg(0))), nft.Between(nft.Reg(0), number(r.First), number(r.Last))...)
	}
	switch r.Do {
	case Accept:
		return append(out, nft.Do(nft.Accept, ""))
	case Jump:
		return append(out, nft.Do(nft.Jump, r.Chain))
	}
	return append(out, nft.Do(nft.Drop, ""))
}

// element encodes an element by the kind of its set.
func (k *netfilter) element(x Element) nft.Element {
	out := nft.Element{Key: x.Key.Addr.AsSlice(), End: x.Key.End}
	switch {
	case x.Set == itself:
		out.Key = append(out.Key, out.Key...)
	case x.Chain != "":
		out.Verdict = &nft.Verdict{Code: nft.Goto, Chain: x.Chain}
	case x.Key.Port != 0:
		out.Key = append(append(out.Key, number(x.Key.Port)...), 0, 0)
	}
	return out
}

func number(port uint16) []byte { return binary.BigEndian.AppendUint16(nil, port) }

// Intact implements Kernel.
func (k *netfilter) Intact() (bool, error) { return k.Table.Intact(k.bases()) }

// Remove deletes the tables of both families.
func Remove() error { return errors.Join(NewNetfilter(false).Remove(), NewNetfilter(true).Remove()) }
