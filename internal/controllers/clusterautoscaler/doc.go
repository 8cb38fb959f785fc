// Package clusterautoscaler changes the number of nodes: it adds nodes to a group
// where that lets pods run which fit nowhere, and removes nodes that are not needed.
// Annotations, events, taints and the status ConfigMap are those of upstream's
// Cluster Autoscaler (https://github.com/kubernetes/autoscaler/tree/master/cluster-autoscaler).
//
// The scheduler's own simulation decides whether pods fit on a new node. It ignores the devices
// and volumes that they would claim there.
//
//   - autoscaler.go is the loop: it looks at the cluster once in a while, and soon
//     after a pod has been found unschedulable,
//   - up.go packs pods on nodes to come, expander.go chooses a group,
//   - down.go finds nodes that are not needed, drain.go decides which pods may be moved
//     and moves them,
//   - status.go reports the state of the cluster.
package clusterautoscaler
