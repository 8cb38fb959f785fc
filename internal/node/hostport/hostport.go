// Package hostport has the interface by which ports of the machine are mapped
// to pods.
package hostport

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Port is a port of the machine that leads to a pod.
type Port struct {
	Protocol v1.Protocol
	// HostIP is the machine's address; the zero Addr stands for all.
	HostIP netip.Addr
	Port   int32
	Pod    netip.AddrPort
}

// Mapper maps ports of the machine to pods.
type Mapper interface {
	// Set gives the pod these ports, in place of those it had. None takes
	// them away.
	Set(pod types.UID, ports []Port) error
}
