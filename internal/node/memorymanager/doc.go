// Package memorymanager gives containers memory and huge pages on NUMA nodes of the
// machine: by the static policy those of Guaranteed pods have it on as few nodes as hold
// it (https://kubernetes.io/docs/tasks/administer-cluster/memory-manager/). It may import
// hardware, podspec, statefile and topology.
package memorymanager
