// Package usage computes what nodes and pods use, as metrics.k8s.io tells it:
// of nodes with an agent from the agent's stats, of simulated nodes from
// annotations of their pods.
//
// Agents are asked for a request, and not again for some seconds. The package does
// not depend on the API server's handlers.
package usage
