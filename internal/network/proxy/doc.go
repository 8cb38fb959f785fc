// Package proxy sends packets for the addresses of Services to their endpoints, by
// nftables, as upstream's kube-proxy does.
//
// It needs informers of Services, EndpointSlices and its own Node, and a Kernel
// for each family of addresses. All rules are in one table a family:
//
//   - The map services leads from (address, protocol, port) to the chain of a
//     port of a Service: one lookup a packet, whether it goes to a cluster
//     address, a node port, an external one or a load balancer's.
//   - Endpoints are elements of one map, by number. Those of a chain have
//     neighbouring numbers, so that its one rule takes a random number from
//     first to first+n-1 and looks it up: an endpoint more or less is an element
//     and that rule, however many others there are.
//   - The map unserved has the ports that have no endpoint: packets to them are
//     rejected, or dropped where only this node has none for it.
//
// A Service that changes is planned anew (plan.go), and what differs from what
// the kernel has is written in one transaction (table.go). The table stays when
// the process ends: the next one replaces it, in one transaction, when its
// informers have synced. A table that was changed by others is replaced.
//
// It imports internal/network/nft and internal/network/index, and nothing else of
// this module.
package proxy
