// Package usage computes what nodes and pods use, as metrics.k8s.io tells it:
// of nodes with an agent from the agent's stats, of simulated nodes from
// annotations of their pods.
//
// Agents are asked when somebody asks, and not again for some seconds. The package
// imports nothing that knows HTTP's requests to the API server.
package usage
