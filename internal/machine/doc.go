// Package machine has what a node needs of the machine that it runs on, outside
// of the API: a container runtime, a network for pods, and the removal of both
// with everything that pods leave behind. It may import package node and its
// subpackages, and network for the removal of what that leaves.
package machine
