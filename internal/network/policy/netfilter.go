package policy

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/network/nft"
)

// tableName is the name of the kernel's table, in each family.
const tableName = "keelson-policy"

// netfilter is the kernel's table of one family.
type netfilter struct {
	family nft.Family
	// generation of the kernel's tables when this one was seen to be intact.
	generation uint32
}

// NewNetfilter returns the kernel's table for IPv4 or IPv6 in this process's network
// namespace.
func NewNetfilter(ipv6 bool) Kernel {
	if ipv6 {
		return &netfilter{family: nft.IPv6}
	}
	return &netfilter{family: nft.IPv4}
}

// base is a chain at a hook, with its rules.
type base struct {
	name  string
	hook  nft.Hook
	rules [][]nft.Expr
}

// The types of ICMPv6 by which neighbours and routers are found: without them no
// address is reached.
const firstDiscovery, lastDiscovery = 133, 137

// bases returns the chains that packets come through. Packets that the first one
// accepts still come to the second one. They come after the service proxy's, which
// answers for Services without endpoints.
func (k *netfilter) bases() []base {
	accept := nft.Do(nft.Accept, "")
	words := uint32(1)
	var always [][]nft.Expr
	if k.family == nft.IPv6 {
		words = 4
		discovery := append([]nft.Expr{nft.Protocol(nft.Reg(0)), nft.Equal(nft.Reg(0), []byte{unix.IPPROTO_ICMPV6}), nft.ICMPType(nft.Reg(0))},
			append(nft.Between(nft.Reg(0), []byte{firstDiscovery}, []byte{lastDiscovery}), accept)...)
		// Pods of one bridge have addresses of its link, which no policy knows.
		link := append([]nft.Expr{k.family.Destination(nft.Reg(0))}, append(nft.Within(nft.Reg(0), prefix(10), linkLocal, false), nft.Do(nft.Drop, ""))...)
		always = [][]nft.Expr{discovery, link}
	}
	always = append([][]nft.Expr{append(nft.Related(), accept), append(nft.Answers(), accept)}, always...)
	always = append(always, []nft.Expr{k.family.Source(nft.Reg(0)), k.family.Destination(nft.Reg(int(words))), nft.In(itself, nft.Reg(0)), accept})
	return []base{
		{"egress", nft.Hook{Type: "filter", Number: unix.NF_INET_FORWARD, Priority: 10},
			append(slices.Clone(always), []nft.Expr{k.family.Source(nft.Reg(0)), nft.Follow(egress, nft.Reg(0))})},
		{"ingress", nft.Hook{Type: "filter", Number: unix.NF_INET_FORWARD, Priority: 11},
			append(slices.Clone(always), []nft.Expr{k.family.Destination(nft.Reg(0)), nft.Follow(ingress, nft.Reg(0))})},
	}
}

// linkLocal is the range fe80::/10.
var linkLocal = append([]byte{0xfe, 0x80}, make([]byte, 14)...)

// prefix returns the mask of an IPv6 address of so many bits.
func prefix(bits int) []byte {
	mask := make([]byte, 16)
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// Replace implements Kernel.
func (k *netfilter) Replace(b *Batch) error {
	t := nft.Begin(k.family, tableName)
	t.AddTable()
	t.DeleteTable()
	t.AddTable()
	addr := k.family.Address()
	t.AddSet(nft.Set{Name: ingress, Key: []nft.Type{addr}, Verdicts: true})
	t.AddSet(nft.Set{Name: egress, Key: []nft.Type{addr}, Verdicts: true})
	t.AddSet(nft.Set{Name: itself, Key: []nft.Type{addr, addr}})
	k.add(t, b)
	for _, c := range k.bases() {
		t.AddChain(c.name, &c.hook)
		for _, r := range c.rules {
			t.AddRule(c.name, r...)
		}
	}
	return k.commit(t, true)
}

// Write implements Kernel.
func (k *netfilter) Write(b *Batch) error {
	t := nft.Begin(k.family, tableName)
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
	return k.commit(t, false)
}

// commit commits the transaction, and remembers the generation that it made if no
// other transaction came since the table was seen to be intact: known reports
// whether it is intact now, whatever was before.
func (k *netfilter) commit(t *nft.Tx, known bool) error {
	before, err := nft.Generation()
	if err != nil {
		return err
	}
	if err := t.Commit(); err != nil {
		return err
	}
	after, err := nft.Generation()
	switch {
	case err != nil:
		return err
	case after == before+1 && (known || before == k.generation):
		k.generation = after
	case known:
		k.generation = before // so that Intact looks
	}
	return nil
}

// add appends what the batch makes, and the flushes of what it unmakes.
func (k *netfilter) add(t *nft.Tx, b *Batch) {
	addr := k.family.Address()
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

// rule returns the kernel's rule for one.
func (k *netfilter) rule(r *Rule) (out []nft.Expr) {
	if r.Source != "" {
		out = append(out, k.family.Source(nft.Reg(0)), nft.In(r.Source, nft.Reg(0)))
	}
	if r.Destination != "" {
		out = append(out, k.family.Destination(nft.Reg(0)), nft.In(r.Destination, nft.Reg(0)))
	}
	if r.Proto != "" {
		out = append(out, nft.Protocol(nft.Reg(0)), nft.Equal(nft.Reg(0), []byte{protocolNumber(r.Proto)}))
	}
	switch {
	case r.Named != "":
		words := 1
		if k.family == nft.IPv6 {
			words = 4
		}
		out = append(out, k.family.Destination(nft.Reg(0)), nft.DestinationPort(nft.Reg(words)), nft.In(r.Named, nft.Reg(0)))
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

// element encodes an element as its set has it.
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

func protocolNumber(p v1.Protocol) byte {
	switch p {
	case v1.ProtocolUDP:
		return unix.IPPROTO_UDP
	case v1.ProtocolSCTP:
		return unix.IPPROTO_SCTP
	}
	return unix.IPPROTO_TCP
}

// Intact implements Kernel. Others' transactions change the generation; what is
// looked at then is whether the table still has its rules at the hooks.
func (k *netfilter) Intact() (bool, error) {
	g, err := nft.Generation()
	if err != nil || g == k.generation {
		return err == nil, err
	}
	for _, c := range k.bases() {
		n, err := nft.Rules(k.family, tableName, c.name)
		if err != nil {
			return false, err
		}
		if n != len(c.rules) {
			return false, nil
		}
	}
	k.generation = g
	return true, nil
}

// Remove implements Kernel.
func (k *netfilter) Remove() error {
	t := nft.Begin(k.family, tableName)
	t.AddTable()
	t.DeleteTable()
	err := t.Commit()
	if k.family == nft.IPv6 && errors.Is(err, unix.EAFNOSUPPORT) || err != nil && strings.Contains(err.Error(), "not supported") {
		return nil // where the family is not there, nothing of it is
	}
	return err
}

// Remove takes the tables away.
func Remove() error { return errors.Join(NewNetfilter(false).Remove(), NewNetfilter(true).Remove()) }
