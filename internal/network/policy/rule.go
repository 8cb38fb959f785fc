package policy

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"
)

// Names of what every table has.
const (
	ingress = "ingress" // address of an isolated pod to the chain of what may reach it
	egress  = "egress"  // address of an isolated pod to the chain of what it may reach
	itself  = "itself"  // (address, address) of isolated pods
)

// Kind is the kind of a set's elements.
type Kind uint8

// Kinds of sets.
const (
	Addresses Kind = iota
	Ranges         // intervals of addresses
	Ports          // (address, port)
)

// Set describes a set.
type Set struct {
	Name string
	Kind Kind
}

// Key of an element. A port is there in sets of the kind Ports only. End, in a set
// of ranges, marks the first address that is not in the range before.
type Key struct {
	Addr netip.Addr
	Port uint16
	End  bool
}

// Element of a set or map. Chain is the value, in ingress and egress.
type Element struct {
	Set   string
	Key   Key
	Chain string
}

// Action is the effect of a rule.
type Action uint8

// Actions of rules.
const (
	Accept Action = iota // in this direction; the other is looked at as well
	Drop
	Jump
)

// Rule of a chain. All conditions that it has must hold.
type Rule struct {
	// Source and Destination are sets that have the address; "" is any.
	Source, Destination string
	// Proto is the protocol; "" is any.
	Proto v1.Protocol
	// First and Last bound the port that the packet goes to; 0 is any.
	First, Last uint16
	// Named is a set that has the address and the port that the packet goes to.
	Named string
	Do    Action
	Chain string // of Jump
}

// Chain with its rules.
type Chain struct {
	Name  string
	Rules []Rule
}

// Batch is a transaction.
type Batch struct {
	DeleteElements []Element
	AddSets        []Set
	AddChains      []string
	// Rules are of chains that are there, or added; they take the place of
	// those that the chain has.
	Rules        []Chain
	AddElements  []Element
	DeleteChains []string
	DeleteSets   []string
}

// Empty reports whether nothing is to be done.
func (b *Batch) Empty() bool {
	return len(b.DeleteElements)+len(b.AddSets)+len(b.AddChains)+len(b.Rules)+len(b.AddElements)+len(b.DeleteChains)+len(b.DeleteSets) == 0
}

// Kernel holds the table of one family of addresses.
type Kernel interface {
	// Replace makes the table anew, with what every table has and what b adds.
	Replace(b *Batch) error
	// Write changes the table.
	Write(b *Batch) error
	// Intact reports whether the table is as it was written last.
	Intact() (bool, error)
	// Remove takes the table away.
	Remove() error
}
