// Package nodegroup has the interface by which the cluster autoscaler makes and
// deletes nodes: a provider of groups of like nodes. Packages below it, and
// simulated nodes, implement it.
package nodegroup
