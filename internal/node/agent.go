package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/admission"
	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/convert"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/exclusive"
	"keelson.dev/keelson/internal/node/image"
	"keelson.dev/keelson/internal/node/imagegc"
	"keelson.dev/keelson/internal/node/imagevolume"
	"keelson.dev/keelson/internal/node/layout"
	"keelson.dev/keelson/internal/node/nodemetrics"
	"keelson.dev/keelson/internal/node/pod"
	"keelson.dev/keelson/internal/node/pullrecord"
	"keelson.dev/keelson/internal/node/report"
	"keelson.dev/keelson/internal/node/shares"
	"keelson.dev/keelson/internal/node/shutdown"
	"keelson.dev/keelson/internal/node/static"
	"keelson.dev/keelson/internal/node/stats"
	"keelson.dev/keelson/internal/node/sysctl"
	"keelson.dev/keelson/internal/node/userns"
)

// Agent runs a node.
type Agent struct {
	Config
	cri      *cri.Client
	pods     *pod.Manager
	informer cache.SharedIndexInformer // of pods
	layout   layout.Layout
	shares   *shares.Shares
	mounter  *imagevolume.Mounter
	reporter *report.Reporter
	metrics  *nodemetrics.Metrics
	stats    *stats.Provider
	eviction *eviction.Manager
	imageGC  *imagegc.Collector
	static   *staticPods
	// exclusive has what containers are given for themselves.
	exclusive *exclusive.Manager
	shutdown  *shutdown.Manager
	// records says whose credentials have pulled the images.
	records *pullrecord.Records
}

// New makes an agent and connects it to its runtime. Informers it needs are
// registered with the factory here, so that the caller can start that before
// or after Run.
func New(cfg Config) (*Agent, error) {
	a, err := assemble(cfg)
	if err != nil {
		return nil, fmt.Errorf("node agent: %w", err)
	}
	return a, nil
}

// assemble makes the agent's parts, each of which is given what it needs of the
// others.
func assemble(cfg Config) (*Agent, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	thresholds, err := cfg.Eviction.Thresholds()
	if err != nil {
		return nil, err
	}
	a := &Agent{Config: cfg, metrics: nodemetrics.New(cfg.NodeName), layout: layout.Layout{Root: cfg.RootDir, Logs: cfg.LogDir},
		informer: cfg.Informers.Core().V1().Pods().Informer()}
	if a.cri = cfg.CRI; a.cri == nil {
		if a.cri, err = cri.Connect(context.Background(), cfg.CRIEndpoint, grpc.WithUnaryInterceptor(a.metrics.Calls())); err != nil {
			return nil, err
		}
	}
	a.cri.Relisted = func(took time.Duration) { a.metrics.Relisted(a.Clock.Now(), took) }
	if a.Cgroups == nil {
		if a.CgroupDriver == "" {
			a.CgroupDriver = cgroupDriver(context.Background(), a.cri)
		}
		if a.Cgroups, err = cgroup.New(a.CgroupDriver); err != nil {
			return nil, err
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, err
	}
	sysctls, err := sysctl.New(strings.TrimSpace(string(kernel)), cfg.AllowedUnsafeSysctls)
	if err != nil {
		return nil, err
	}
	records, err := pullrecord.New(cfg.VerifyPulls, cfg.VerifyPullsExcept, filepath.Join(cfg.RootDir, "image_pulls.json"))
	if err != nil {
		return nil, err
	}
	a.records = records
	a.static = newStaticPods(a)
	reported, hostIPs := cfg.NodeIPs, cfg.NodeIPs
	if cfg.External {
		reported, hostIPs = func() []net.IP { return cfg.ProvidedIPs }, a.givenIPs
	}
	a.reporter = report.New(report.Config{
		NodeName: cfg.NodeName, Hostname: cfg.Hostname, NodeIPs: reported, External: cfg.External, Labels: cfg.Labels, Taints: cfg.Taints, ProviderID: cfg.ProviderID,
		Port: cfg.Port, Version: cfg.Version, Root: cfg.RootDir, MaxPods: cfg.MaxPods,
		KubeReserved: cfg.KubeReserved, SystemReserved: cfg.SystemReserved, Thresholds: thresholds,
		Client: cfg.Client, CRI: a.cri, Recorder: cfg.Recorder, Clock: cfg.Clock,
		Pressure: func() []v1.NodeConditionType { return a.eviction.UnderPressure() }, Registered: a.static.notify,
		Devices: func() (v1.ResourceList, v1.ResourceList) { return a.exclusive.Devices.Capacity() }, MaxImages: cfg.MaxImages,
		ShuttingDown: func() bool { return a.shutdown.Now() },
		Nodes:        cfg.Informers.Core().V1().Nodes(), Unanswered: cfg.Unanswered,
	})
	if a.exclusive, err = newExclusive(a); err != nil {
		return nil, err
	}
	a.shares = &shares.Shares{Cgroups: a.Cgroups, Root: cfg.CgroupRoot, Memory: cfg.MemoryQoS, PidsLimit: cfg.PodPidsLimit, All: a.reporter.ForPods(), Pods: a.Pods}
	a.mounter = &imagevolume.Mounter{Runtime: a.cri}
	a.pods = pod.New(pod.Config{
		NodeIPs: hostIPs, Client: cfg.Client, CRI: a.cri, Layout: a.layout, Volumes: cfg.Volumes, ImageVolumes: a.mounter, Devices: a.Devices, Exclusive: a.exclusive, Shares: a.shares, HostPorts: cfg.HostPorts, Policies: cfg.Policies,
		Metrics: a.metrics, Recorder: cfg.Recorder, Trace: cfg.Trace, Clock: cfg.Clock, Gone: func(*v1.Pod) { a.static.notify() }, MaxRestartPause: cfg.MaxRestartPause,
		Converter: &convert.Converter{
			CRI: a.cri, Client: cfg.Client, Layout: a.layout, Services: cfg.Informers.Core().V1().Services().Lister(), Sources: cfg.Sources,
			SubPath: cfg.Volumes.SubPath, UserNamespaces: &userns.Allocator{Pods: a.layout.Pods()}, Shares: a.shares, Allocatable: a.Allocatable,
			Memory: a.reporter.Memory(), Swap: swap(cfg), SeccompDefault: cfg.SeccompDefault, NodeIPs: hostIPs, ClusterDNS: cfg.ClusterDNS, ClusterDomain: cfg.ClusterDomain, ResolvConf: cfg.ResolvConf,
		},
		Admission: &admission.Checker{
			NodeName: cfg.NodeName, Client: cfg.Client, CRI: a.cri, Sysctls: sysctls, Allocatable: a.admittable, Initial: a.reporter.Initial, Pods: func() []*v1.Pod { return a.pods.Admitted() },
			Exclusive: a.exclusive, ShuttingDown: func() bool { return a.shutdown.Now() },
			Pressure: func(p *v1.Pod, class v1.PodQOSClass) string { return a.eviction.Admit(p, class) },
		},
		Images: &image.Puller{Runtime: a.cri, Secrets: cfg.Sources, Providers: cfg.Credentials, Recorder: cfg.Recorder, Trace: cfg.Trace, Clock: cfg.Clock, Slots: slots(cfg.MaxPulls), Records: records, Pulled: a.metrics.ImagePulled},
	})
	a.metrics.Registry.MustRegister(a.pods.Counts())
	a.Devices.OnChange(a.devicesChanged)
	a.shutdown = newShutdown(a)
	a.stats = newStats(a)
	a.imageGC = newImageGC(a)
	a.eviction = newEviction(a, thresholds)
	return a, nil
}

// givenIPs returns the addresses that a cloud's controller manager has given to the
// Node, or those of the machine as long as it has not.
func (a *Agent) givenIPs() []net.IP {
	if n, err := a.Informers.Core().V1().Nodes().Lister().Get(a.NodeName); err == nil {
		if given := report.HostIPs(n); len(given) > 0 {
			return given
		}
	}
	return a.NodeIPs()
}

// cgroupDriver returns the runtime's cgroup driver, if the runtime reports it.
func cgroupDriver(ctx context.Context, c *cri.Client) cgroup.Driver {
	r, err := c.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{})
	if err == nil && r.GetLinux().GetCgroupDriver() == runtimeapi.CgroupDriver_SYSTEMD {
		return cgroup.Systemd
	}
	return cgroup.Cgroupfs
}

// Run registers the node, keeps its status and its lease, and runs its pods
// until ctx ends. Containers keep running when it returns.
func (a *Agent) Run(ctx context.Context) error {
	log := klog.FromContext(ctx).WithValues("node", a.NodeName)
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, log))
	defer cancel()
	if err := os.MkdirAll(a.layout.Pods(), 0o750); err != nil {
		return fmt.Errorf("node agent: %w", err)
	}
	if err := os.MkdirAll(a.LogDir, 0o755); err != nil {
		return fmt.Errorf("node agent: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		// First, so that a node which starts under pressure is sent no pods.
		if err := a.eviction.Look(ctx); err != nil && ctx.Err() == nil {
			log.Error(err, "Reading the node's stats failed")
		}
		wg.Go(func() { a.reporter.Run(ctx) })
		a.eviction.Run(ctx)
	})
	a.pods.Start(ctx)
	handle, err := a.informer.AddEventHandler(a.podHandler())
	if err != nil {
		stopped := ctx.Err() != nil // and so is the informer
		cancel()
		wg.Wait()
		a.pods.Wait()
		if stopped {
			return nil
		}
		return fmt.Errorf("node agent: watching pods: %w", err)
	}
	defer a.informer.RemoveEventHandler(handle)

	wg.Go(func() { a.cri.WatchPods(ctx, a.Clock, func(uid string) { a.pods.RuntimeChanged(types.UID(uid)) }) })
	wg.Go(func() {
		if !cache.WaitForCacheSync(ctx.Done(), handle.HasSynced) {
			return
		}
		select {
		case <-a.static.known:
			a.housekeep(ctx)
		case <-ctx.Done():
		}
	})
	wg.Go(func() { a.static.run(ctx, handle.HasSynced) })
	wg.Go(func() { a.rotateLogs(ctx) })
	wg.Go(func() { a.imageGC.Run(ctx) })
	wg.Go(func() { a.Devices.Run(ctx) })
	wg.Go(func() { a.exclusive.Run(ctx) })
	wg.Go(func() { a.shutdown.Run(ctx) })
	<-ctx.Done()
	wg.Wait()
	a.pods.Wait()
	return nil
}

// podHandler gives the node's pods in the API to what runs them, and the mirrors of
// static pods to what keeps these.
func (a *Agent) podHandler() cache.ResourceEventHandler {
	changed := func(obj any) {
		if p := obj.(*v1.Pod); static.IsMirror(p) {
			a.static.mirrorChanged(p, p)
		} else {
			a.pods.Changed(p)
		}
	}
	return cache.FilteringResourceEventHandler{
		FilterFunc: func(obj any) bool {
			p := podOf(obj)
			return p != nil && p.Spec.NodeName == a.NodeName
		},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    changed,
			UpdateFunc: func(_, obj any) { changed(obj) },
			DeleteFunc: func(obj any) {
				if p := podOf(obj); static.IsMirror(p) {
					a.static.mirrorChanged(p, nil)
				} else {
					a.pods.Removed(p.UID)
				}
			},
		},
	}
}

// podOf returns the pod that an event is about, nil if it is about none.
func podOf(obj any) *v1.Pod {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	p, _ := obj.(*v1.Pod)
	return p
}

// CRI returns the runtime's client.
func (a *Agent) CRI() *cri.Client { return a.cri }

// Pods returns the pods of this node, each with the status last computed here.
func (a *Agent) Pods() []*v1.Pod { return a.pods.Pods() }

// ContainerID finds the newest container of that name in a pod, or with
// previous the one before it, and the path of its log. An empty podUID means
// any.
func (a *Agent) ContainerID(podNamespace, podName string, podUID types.UID, container string, previous bool) (id, logPath string, err error) {
	return a.pods.ContainerID(podNamespace, podName, podUID, container, previous)
}

// Sandbox returns the ID of the pod's sandbox.
func (a *Agent) Sandbox(namespace, name string) (string, error) {
	return a.pods.Sandbox(namespace, name)
}

// Running reports whether the container of this ID of a pod runs. The runtime is asked only
// where the pod's status does not tell: all who follow the container's log ask, over and over.
func (a *Agent) Running(ctx context.Context, namespace, name, container, id string) bool {
	if running, known := a.pods.Running(namespace, name, container, id); known {
		return running
	}
	r, err := a.cri.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	return err == nil && r.Status.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING
}

// NetworkChanged makes the agent write the statuses of the node and of its pods soon,
// because the runtime's network is ready or the node's addresses are others.
func (a *Agent) NetworkChanged() {
	a.reporter.Changed()
	a.pods.Refresh()
}

// Stats measures the node and its pods.
func (a *Agent) Stats() *stats.Provider { return a.stats }

// Metrics counts what the agent does.
func (a *Agent) Metrics() *nodemetrics.Metrics { return a.metrics }

// Renewed returns when the API server has last heard of the node.
func (a *Agent) Renewed() time.Time { return a.reporter.Renewed() }

// Allocatable returns the node's resources for pods.
func (a *Agent) Allocatable() v1.ResourceList { return a.reporter.Allocatable() }

// swap returns the swap that pods can use, in bytes.
func swap(c Config) int64 {
	if !c.LimitedSwap {
		return 0
	}
	return int64(stats.SwapTotal())
}

// slots returns what bounds the pulls at one time, nil for no bound.
func slots(n int) chan struct{} {
	if n <= 0 {
		return nil
	}
	return make(chan struct{}, n)
}
