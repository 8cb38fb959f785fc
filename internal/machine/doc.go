// Package machine prepares the machine for a node: a container runtime and a
// network for pods, and the removal of both with everything that pods leave
// behind. It may import package node and its subpackages, and package network to
// remove what that leaves.
package machine
