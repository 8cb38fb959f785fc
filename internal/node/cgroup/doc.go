// Package cgroup gives the pods of a node, and the classes of quality of service
// that they are in, their shares of the machine, as upstream's kubelet does, on
// cgroup v1 and v2, with the drivers cgroupfs and systemd
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/). The arithmetic
// is in resources.go and needs no machine. It may import the API types and
// component-helpers.
package cgroup
