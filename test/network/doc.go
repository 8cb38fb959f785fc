// Package network_test reaches pods in real containers over Services, from pods
// and from their node. It needs root, containerd, runc, the CNI plug-ins and
// nftables, and leaves nothing behind.
package network_test
