// Package cni configures the pods' network of a node without a CNI
// configuration: a bridge with addresses of the node's range, host ports, and
// translation of packets to outside of the cluster.
package cni
