// Package podnet connects the pods of this machine with those of the others, by
// the Nodes' spec.podCIDRs and InternalIPs. The ranges of a node on the same
// segment are reached by routes to its address, those of others through VXLAN
// (RFC 7348). It follows changes of the Nodes, and of the machine's links,
// addresses and routes.
//
// The Nodes are all that machines need to know of each other: the hardware
// address of a node's end of the tunnel is derived from the node's name.
package podnet
