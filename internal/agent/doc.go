// Package agent assembles the node agent of this machine: internal/node with its
// volumes and its HTTP server, the machine's part of the cluster's network, and the
// local storage driver. Start runs it in the process of an API server, Run in one of
// its own, against the API server of any cluster, which the machine may join first
// (package join); PrepareJoin creates the objects that the latter needs in the
// cluster.
//
// It reaches the cluster by a client with the rights of its node. It contains wiring
// and no logic of the parts, and may import internal/machine, internal/node and
// internal/network.
package agent
