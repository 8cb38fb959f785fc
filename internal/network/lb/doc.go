// Package lb gives Services of the type LoadBalancer addresses that are reached
// from outside of the cluster.
//
// A platform's way to do so is a Balancer; internal/controllers/service calls it.
// There are two that need no platform:
//
//   - Nodes gives the addresses of the nodes themselves. On one machine it is all
//     that is needed. A port is one Service's.
//   - Pool gives each Service an address of ranges that the cluster has for this,
//     and has one node answer for it on its segment of the network (ARP, NDP). When
//     that node is not Ready, another one does. The node is told by an annotation,
//     and its Announcer answers.
//
// Packets to the addresses are sent to endpoints by the service proxy of the node
// that they come to.
//
// It imports internal/network/index, and nothing else of this module.
package lb
