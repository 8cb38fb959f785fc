// Package cpumanager gives containers CPUs of their own: by the static policy those of
// Guaranteed pods that ask for whole CPUs have them exclusively, and all others share the
// rest (https://kubernetes.io/docs/tasks/administer-cluster/cpu-management-policies/).
// It may import cri, hardware, podspec, statefile and topology.
package cpumanager
