// Package topology decides on which NUMA nodes of the machine a container gets what it
// has for itself: CPUs, memory, devices. Each provider of such resources says where it
// could give them; a policy merges that, and refuses a pod or not
// (https://kubernetes.io/docs/tasks/administer-cluster/topology-manager/).
// It imports no other package of the node.
package topology
