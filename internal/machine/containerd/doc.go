// Package containerd runs a private containerd for a node that has no running
// CRI runtime, with its own root, state and configuration. It may import
// package cri.
package containerd
