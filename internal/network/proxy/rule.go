package proxy

import (
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Names of the sets, maps and chains that every table has.
const (
	services   = "services"    // (address, protocol, port) to the chain of a Service's port
	unserved   = "unserved"    // the same of ports without endpoints to the chain reject, or a drop
	firewall   = "firewall"    // the same of load balancers that are restricted to source ranges
	endpoints  = "endpoints-"  // the first part of the names of the maps from numbers to (address, port)
	clusterIPs = "cluster-ips" // the Services' cluster addresses
	hairpin    = "hairpin"     // (address, address) of the endpoints on this node
	reject     = "reject"      // the chain that rejects
)

// spread is the number of maps over which the endpoints are spread: for each
// element that is added, the kernel visits all rules that use the map.
const spread = 64

// masqueradeMark is the bit of a packet's mark, upstream's, by which the
// packet's source becomes the machine's address.
const masqueradeMark = 0x4000

// When selects the packets that a rule is for.
type When uint8

// Conditions of rules.
const (
	Always When = iota
	FromPods
	NotFromPods
	FromLocal // an address of this machine
	FromRange
)

// Action is the effect of a rule.
type Action uint8

// Actions of rules.
const (
	Mark Action = iota // for masquerading; the next rule follows
	Goto
	Return
	Drop
	// Balance sends the packet to one of N endpoints of Set from number First. With an
	// affinity map it stores the endpoint of the source there.
	Balance
	// Stick sends the packet to the endpoint of its source in the affinity map, if
	// that is in the set Live.
	Stick
)

// Rule is a rule of a chain.
type Rule struct {
	When     When
	Range    netip.Prefix // of FromRange
	Do       Action
	Chain    string // of Goto
	Set      string // of Balance
	First, N uint32
	// Affinity is a map from sources to endpoints, Timeout how long an element
	// lasts, Live the set of the chain's present endpoints, for Stick.
	Affinity, Live string
	Timeout        time.Duration
}

// Key is the key of an element. Which fields are used depends on the set.
type Key struct {
	Addr   netip.Addr
	Proto  v1.Protocol
	Port   uint16
	Number uint32
}

// Value is the value of a map's element: a chain to go to or, without one, a
// drop; or an endpoint.
type Value struct {
	Chain    string
	Endpoint netip.AddrPort
}

// Place is the place of an element: its set and key.
type Place struct {
	Set string
	Key Key
}

// Element is an element of a set or map.
type Element struct {
	Place
	Value Value
}

// Chain is a chain with its rules.
type Chain struct {
	Name  string
	Rules []Rule
}

// Batch is a transaction. Deletions come before additions, except those of
// chains and maps, to which nothing may refer by then.
type Batch struct {
	DeleteElements []Element
	// AddAffinity are maps for affinity, AddLive sets for Live.
	AddAffinity, AddLive []string
	AddChains            []string
	// Rules replace the rules of chains that exist or are added.
	Rules        []Chain
	AddElements  []Element
	DeleteChains []string
	DeleteSets   []string
}

// Empty reports whether the batch has no changes.
func (b *Batch) Empty() bool {
	return len(b.DeleteElements)+len(b.AddAffinity)+len(b.AddLive)+len(b.AddChains)+len(b.Rules)+len(b.AddElements)+len(b.DeleteChains)+len(b.DeleteSets) == 0
}

// Kernel holds the table of one family of addresses.
type Kernel interface {
	// Replace replaces the table by one with the parts that every table has and what
	// b adds. Affinity is kept.
	Replace(b *Batch) error
	// Write changes the table.
	Write(b *Batch) error
	// Intact reports whether the table is as it was written last.
	Intact() (bool, error)
	// Remove deletes the table.
	Remove() error
}
