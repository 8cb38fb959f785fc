package policy

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"
)

// Names of the maps and sets that every table has.
const (
	ingress = "ingress" // address of an isolated pod to the chain for packets to it
	egress  = "egress"  // address of an isolated pod to the chain for packets from it
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

// Key is the key of an element. Only sets of the kind Ports have a port. End, in a
// set of ranges, marks the first address after a range.
type Key struct {
	Addr netip.Addr
	Port uint16
	End  bool
}

// Element is an element of a set or map. Chain is the value, in ingress and
// egress.
type Element struct {
	Set   string
	Key   Key
	Chain string
}

// Action is the effect of a rule.
type Action uint8

// Actions of rules.
const (
	Accept Action = iota // in this direction; the other is checked as well
	Drop
	Jump
)

// Rule is a rule of a chain. All conditions that are set must hold.
type Rule struct {
	// Source and Destination are the sets that must contain the address; "" is any.
	Source, Destination string
	// Proto is the protocol; "" is any.
	Proto v1.Protocol
	// First and Last bound the destination port; 0 is any.
	First, Last uint16
	// Named is the set that must contain the destination address and port.
	Named string
	Do    Action
	Chain string // of Jump
}

// Chain is a chain with its rules.
type Chain struct {
	Name  string
	Rules []Rule
}

// Batch is a transaction on a table.
type Batch struct {
	// Links are the bridges on which there are isolated pods, in order; of Replace only.
	Links          []string
	DeleteElements []Element
	AddSets        []Set
	AddChains      []string
	// Rules replace the rules of chains that exist or are added.
	Rules        []Chain
	AddElements  []Element
	DeleteChains []string
	DeleteSets   []string
}

// Empty reports whether the batch has no changes.
func (b *Batch) Empty() bool {
	return len(b.DeleteElements)+len(b.AddSets)+len(b.AddChains)+len(b.Rules)+len(b.AddElements)+len(b.DeleteChains)+len(b.DeleteSets) == 0
}

// Kernel holds the table of one family of addresses.
type Kernel interface {
	// Replace replaces the table by one with the parts that every table has and what
	// b adds.
	Replace(b *Batch) error
	// Write changes the table.
	Write(b *Batch) error
	// Intact reports whether the table is as it was written last.
	Intact() (bool, error)
	// Remove deletes the table.
	Remove() error
}
