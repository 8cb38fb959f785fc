// Package lb gives Services of the type LoadBalancer addresses that are reached
// from outside of the cluster.
//
// A Balancer does so by the means of a platform; internal/controllers/service calls
// it. Two balancers need no platform:
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
