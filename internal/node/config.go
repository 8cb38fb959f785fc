package node

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/convert"
	"keelson.dev/keelson/internal/node/credentials"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/dra"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/exclusive"
	"keelson.dev/keelson/internal/node/hostport"
	"keelson.dev/keelson/internal/node/imagegc"
	"keelson.dev/keelson/internal/node/logs"
	"keelson.dev/keelson/internal/node/pod"
	"keelson.dev/keelson/internal/node/shutdown"
	"keelson.dev/keelson/internal/trace"
)

// Config configures an Agent.
type Config struct {
	NodeName string
	Client   kubernetes.Interface
	// Unanswered, if set, is called when the API server has not answered repeatedly.
	Unanswered func()
	// Informers gives pods (restricted to this node, or not: pods of other
	// nodes are passed over), services and nodes. The caller starts it.
	Informers informers.SharedInformerFactory

	// CRI is the runtime; if nil, CRIEndpoint is connected to.
	CRI         *cri.Client
	CRIEndpoint string

	RootDir string // pods/<uid>/... are under it
	LogDir  string // /var/log/pods where empty

	LogMaxSize  int64 // bytes; logs.DefaultMaxSize where 0
	LogMaxFiles int   // logs.DefaultMaxFiles where 0

	Hostname string
	// NodeIPs returns the node's addresses: one, or one of each family. They may
	// change while the agent runs (Agent.NetworkChanged).
	NodeIPs func() []net.IP
	// External leaves the Node's addresses and its initialization to a cloud's
	// controller manager, which is asked for those of ProvidedIPs.
	External      bool
	ProvidedIPs   []net.IP
	Labels        map[string]string
	Taints        []v1.Taint
	ProviderID    string
	ClusterDNS    []string
	ClusterDomain string
	ResolvConf    string // /etc/resolv.conf where empty
	PauseImage    string // never collected
	CgroupRoot    string // of the pods' cgroups; "" is the machine's
	// CgroupDriver makes the pods' cgroups; what the runtime says where it is
	// empty, else cgroupfs.
	CgroupDriver cgroup.Driver
	// Cgroups makes cgroups; that of this machine, with the driver, where nil.
	Cgroups *cgroup.Manager
	// MemoryQoS configures the memory that is protected or throttled, on cgroup
	// v2.
	MemoryQoS cgroup.Memory
	// PodPidsLimit is how many processes a pod may have; no limit where 0.
	PodPidsLimit int64
	MaxPods      int64
	Port         int32 // of the node's HTTP server
	Version      string
	// KubeReserved and SystemReserved are kept from pods: for Kubernetes itself,
	// and for the rest of the machine.
	KubeReserved, SystemReserved v1.ResourceList
	// Eviction configures when pods are evicted: by upstream's hard thresholds
	// where it has none.
	Eviction eviction.Settings
	// ImageGC configures when images are removed: by upstream's policy where it
	// is zero.
	ImageGC imagegc.Policy
	// AllowedUnsafeSysctls are the kernel parameters that pods may set
	// beside the safe ones: names, or beginnings of names and *.
	AllowedUnsafeSysctls []string
	// StaticPods is the folder of the static pods' manifests; empty is none.
	StaticPods string
	// StaticPodURL is where other manifests are read, with these headers; empty is nowhere.
	StaticPodURL    string
	StaticPodHeader http.Header
	HostPorts       hostport.Mapper // nil where the network maps them itself
	Policies        pod.Policies    // of the network; nil where they are not enforced

	Clock    clock.WithTicker
	Recorder record.EventRecorder
	// Trace is told of the phases of pods; it may be nil.
	Trace   *trace.Reporter
	Volumes pod.Volumes
	// Credentials are the plug-ins that have credentials for images; nil is none.
	Credentials *credentials.Providers
	// Shutdown configures how long pods have to end before the machine shuts down; Login
	// connects to what announces that, the machine's logind where nil.
	Shutdown shutdown.Settings
	Login    func() (shutdown.Login, error)
	// SeccompDefault gives containers without a seccomp profile the runtime's.
	SeccompDefault bool
	// LimitedSwap lets burstable pods use swap, on cgroup v2.
	LimitedSwap bool
	// MaxImages is how many images the node's status has: report.DefaultMaxImages where 0,
	// all where negative.
	MaxImages int
	// PodsPerCore is how many pods may run for each CPU; no such limit where 0.
	PodsPerCore int64
	// LogPeriod is how often the size of logs is looked at, 10 seconds where 0.
	LogPeriod time.Duration
	// VerifyPulls is a policy of pullrecord, and VerifyPullsExcept its list of images.
	VerifyPulls       string
	VerifyPullsExcept []string
	// MaxRestartPause is the longest pause before a container that crashes is started
	// again, backoff.Max where 0.
	MaxRestartPause time.Duration
	// MaxPulls is how many images are pulled at one time; no limit where 0.
	MaxPulls int
	// Exclusive configures what containers have for themselves.
	Exclusive exclusive.Options
	// Devices prepares those of resource claims; one without drivers where nil.
	Devices *dra.Manager
	Sources convert.Sources
}

func (c *Config) complete() error {
	switch {
	case c.NodeName == "":
		return errors.New("NodeName is needed")
	case c.Client == nil || c.Informers == nil:
		return errors.New("Client and Informers are needed")
	case c.CRI == nil && c.CRIEndpoint == "":
		return errors.New("a CRI runtime's endpoint is needed")
	case c.RootDir == "":
		return errors.New("RootDir is needed")
	case c.Volumes == nil || c.Sources == nil:
		return errors.New("Volumes and Sources are needed")
	case c.LogMaxFiles == 1 || c.LogMaxFiles < 0:
		return fmt.Errorf("%d log files of a container; at least 2 are needed, so that one can be rotated", c.LogMaxFiles)
	case c.Recorder == nil:
		return errors.New("Recorder is needed")
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Devices == nil {
		c.Devices = dra.New(c.Client, c.NodeName, filepath.Join(c.RootDir, "dra.json"), c.Clock)
	}
	c.KubeReserved, c.SystemReserved = c.Exclusive.Reserve(c.KubeReserved, c.SystemReserved)
	if c.Hostname == "" {
		c.Hostname, _ = os.Hostname()
	}
	if c.LogDir == "" {
		c.LogDir = "/var/log/pods"
	}
	if c.LogMaxSize == 0 {
		c.LogMaxSize = logs.DefaultMaxSize
	}
	if c.LogMaxFiles == 0 {
		c.LogMaxFiles = logs.DefaultMaxFiles
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.PodPidsLimit == 0 {
		c.PodPidsLimit = cgroup.Unlimited
	}
	if c.Eviction.Hard == nil {
		c.Eviction.Hard = eviction.DefaultHard
	}
	if c.Eviction.Transition == 0 {
		c.Eviction.Transition = eviction.DefaultTransition
	}
	if c.ImageGC == (imagegc.Policy{}) {
		c.ImageGC = imagegc.DefaultPolicy
	}
	if err := c.ImageGC.Validate(); err != nil {
		return fmt.Errorf("%w", err)
	}
	if c.MaxPods == 0 {
		c.MaxPods = 110
	}
	if c.PodsPerCore > 0 {
		c.MaxPods = min(c.MaxPods, c.PodsPerCore*int64(runtime.NumCPU()))
	}
	if c.LogPeriod == 0 {
		c.LogPeriod = 10 * time.Second
	}
	if c.Login == nil {
		c.Login = shutdown.System
	}
	if err := c.Shutdown.Validate(); err != nil {
		return err
	}
	if c.Version == "" {
		c.Version = "v1.37.2"
	}
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	return nil
}
