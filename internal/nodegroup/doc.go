// Package nodegroup is what the cluster autoscaler asks of those who make and delete
// nodes: a provider of groups of like nodes. Packages below it, and simulated nodes,
// implement it.
package nodegroup
