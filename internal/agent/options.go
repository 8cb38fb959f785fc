package agent

import (
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/exclusive"
	"keelson.dev/keelson/internal/node/imagegc"
	"keelson.dev/keelson/internal/node/server"
	"keelson.dev/keelson/internal/node/shutdown"
)

// Options configures the node in this process.
type Options struct {
	// Name of the node; default the machine's.
	Name string
	// Port of the node's HTTP server (default 10250).
	Port int
	// Tracing is where the node sends what it does to as spans: the section tracing of a
	// KubeletConfiguration, in JSON. Empty sends nothing.
	Tracing string
	// Logs is where the containers' logs are (default below the data folder).
	Logs string
	// LogMaxSize (bytes) and LogMaxFiles bound the log of each container; 0 means
	// the kubelet's defaults (10 MiB, 5).
	LogMaxSize  int64
	LogMaxFiles int
	// MaxPods is how many pods may run; 0 means 110.
	MaxPods int64
	// KubeReserved and SystemReserved are resources that pods do not get.
	KubeReserved, SystemReserved v1.ResourceList
	// Eviction and ImageGC default to the kubelet's settings.
	Eviction eviction.Settings
	ImageGC  imagegc.Policy
	// Server turns parts of the node's HTTP API off.
	Server server.Options
	// Shutdown is how long pods have to end before the machine shuts down.
	Shutdown shutdown.Settings
	// MemoryQoS is what memory is protected or throttled, on cgroup v2.
	MemoryQoS cgroup.Memory
	// Swap is LimitedSwap where burstable pods can use swap, else NoSwap.
	Swap string
	// SeccompDefault, MaxImages, PodsPerCore, LogPeriod and MaxPulls are node.Config's.
	SeccompDefault bool
	MaxImages      int
	PodsPerCore    int64
	LogPeriod      time.Duration
	MaxPulls       int
	// MaxRestartPause is node.Config's.
	MaxRestartPause time.Duration
	// VerifyPulls and VerifyPullsExcept are node.Config's.
	VerifyPulls       string
	VerifyPullsExcept []string
	// Exclusive has upstream's defaults where it is empty.
	Exclusive exclusive.Options
	// StaticPods is the folder of static pods' manifests; empty is none.
	StaticPods string
	// StaticPodURL is where other manifests are read, with the headers of StaticPodHeaders, each
	// a name, a colon and a value.
	StaticPodURL     string
	StaticPodHeaders []string
	// AllowedUnsafeSysctls are kernel parameters that pods may set beside the
	// safe ones: names, or beginnings of names and *.
	AllowedUnsafeSysctls []string
	// PodPidsLimit is how many processes a pod may have; 0 means no limit.
	PodPidsLimit int64
	// ResolvConf is the resolver configuration (resolv.conf) for pods that use the
	// machine's.
	ResolvConf string
	// Labels, Taints and ProviderID are set on the Node when it is registered.
	Labels     map[string]string
	Taints     []v1.Taint
	ProviderID string
	// ExternalCloud leaves the Node's addresses and its initialization to a cloud's
	// controller manager.
	ExternalCloud bool
	// CredentialConfig is the file of the plug-ins that have credentials for images
	// (CredentialProviderConfig), and CredentialBin the folder of their programs.
	CredentialConfig, CredentialBin string
	// CgroupDriver makes the pods' cgroups; where it is empty it is the runtime's.
	CgroupDriver cgroup.Driver
	// Storage is the driver of volumes on this node's disk: Builtin or None.
	Storage string
	// Network configures the service proxy and the name server for pods.
	Network Network
}

// NodeName returns the name of the node.
func (o *Options) NodeName() string {
	if o.Name == "" {
		return strings.ToLower(component.Hostname())
	}
	return o.Name
}

// nodeUser begins the name of a node's user.
const nodeUser = "system:node:"

// User returns the user that the node acts as.
func (o *Options) User() user.Info {
	return &user.DefaultInfo{Name: nodeUser + o.NodeName(), Groups: []string{user.NodesGroup, user.AllAuthenticated}}
}

// complete fills in the defaults that depend on the machine.
func (o *Options) complete(m *machine.Machine) {
	o.Name = o.NodeName()
	if o.Port == 0 {
		o.Port = 10250
	}
	if o.Logs == "" {
		o.Logs = filepath.Join(m.Dir(), "logs")
	}
}
