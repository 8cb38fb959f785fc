package convert

import (
	"context"
	"net"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/layout"
	"keelson.dev/keelson/internal/node/shares"
	"keelson.dev/keelson/internal/node/userns"
	"keelson.dev/keelson/internal/node/volume"
)

// Sources reads the objects that a container's environment comes from.
type Sources interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
}

// Converter converts the pods of one node to CRI.
type Converter struct {
	CRI    *cri.Client
	Client kubernetes.Interface // for runtime classes
	Layout layout.Layout
	// Services lists the Services for which containers get environment
	// variables.
	Services corelisters.ServiceLister
	Sources  Sources
	// SubPath makes a path in a volume of the pod ready, for the mount of this
	// index of a container.
	SubPath        func(pod types.UID, v volume.Mounted, name, container string, index int, path string) (string, error)
	UserNamespaces *userns.Allocator
	Shares         *shares.Shares
	// Allocatable returns the resources of the node for pods.
	Allocatable func() v1.ResourceList
	// Memory is the machine's memory in bytes.
	Memory int64

	// Swap is the swap that pods can use, in bytes: a burstable pod's container uses such a
	// part of it as it requests of the memory (KEP-2400).
	Swap int64
	// SeccompDefault gives containers without a seccomp profile the runtime's.
	SeccompDefault bool

	// NodeIPs returns the node's addresses.
	NodeIPs       func() []net.IP
	ClusterDNS    []string
	ClusterDomain string
	ResolvConf    string
}
