// Package network tests Services, DNS and network policies with pods in
// real containers, from pods and from their node. It needs root, containerd,
// runc, the CNI plug-ins and nftables, and leaves nothing behind.
package network
