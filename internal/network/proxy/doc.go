// Package proxy sends packets for the addresses of Services to their endpoints, by
// nftables, as upstream's kube-proxy does.
//
// It needs informers of Services, EndpointSlices and its own Node, and a Kernel
// for each family of addresses. Each family has one table:
//
//   - The map services leads from (address, protocol, port) to the chain of a
//     Service's port: one lookup per packet, for cluster addresses, node ports,
//     external addresses and load balancers alike.
//   - Endpoints are elements of maps, by number. Those of a chain have consecutive
//     numbers, so that its one rule takes a random number from first to first+n-1
//     and looks it up: adding or removing an endpoint changes one element and that
//     rule, however many others there are.
//   - The map unserved has the ports without endpoints: packets to them are
//     rejected, or dropped where only this node has no endpoint.
//
// A Service that changes is planned again (plan.go), and the differences from the
// kernel's state are written in one transaction (table.go). The table stays when
// the process ends: the next process replaces it, in one transaction, when its
// informers have synced. A table that another process has changed is replaced.
//
// It imports internal/network/nft, internal/network/index and
// internal/network/upkeep, and nothing else of this module.
package proxy
