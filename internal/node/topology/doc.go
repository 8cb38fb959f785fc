// Package topology decides on which NUMA nodes of the machine a container gets its
// exclusive resources: CPUs, memory, devices. Each provider of such resources gives
// hints where it could allocate them; a policy merges the hints, and decides whether to
// refuse the pod
// (https://kubernetes.io/docs/tasks/administer-cluster/topology-manager/). It imports
// no other package of the node.
package topology
