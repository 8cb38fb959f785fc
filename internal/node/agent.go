package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/imagegc"
	"keelson.dev/keelson/internal/node/nodemetrics"
	"keelson.dev/keelson/internal/node/static"
	"keelson.dev/keelson/internal/node/stats"
	"keelson.dev/keelson/internal/node/sysctl"
	"keelson.dev/keelson/internal/node/userns"
)

const housekeepingPeriod = time.Minute

// Agent runs a node.
type Agent struct {
	Config
	cri      *cri.Client
	pods     cache.SharedIndexInformer
	services corelisters.ServiceLister
	svcReady cache.InformerSynced
	status   *nodeStatus
	images   *imagePuller
	metrics  *nodemetrics.Metrics
	stats    *stats.Provider
	eviction *eviction.Manager
	imageGC  *imagegc.Collector
	static   *staticPods
	sysctls  *sysctl.List
	users    *userns.Allocator
	classes  sync.Mutex // over writes to the classes' cgroups

	mu      sync.Mutex
	workers map[types.UID]*worker
	ctx     context.Context // of Run; workers live in it
	wg      sync.WaitGroup
}

// New makes an agent and connects it to its runtime. Informers it needs are
// registered with the factory here, so that the caller can start that before
// or after Run.
func New(cfg Config) (*Agent, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	thresholds, err := cfg.Eviction.Thresholds()
	if err != nil {
		return nil, fmt.Errorf("node agent: %w", err)
	}
	metrics := nodemetrics.New(cfg.NodeName)
	client := cfg.CRI
	if client == nil {
		var err error
		if client, err = cri.Connect(context.Background(), cfg.CRIEndpoint, grpc.WithUnaryInterceptor(metrics.Calls())); err != nil {
			return nil, err
		}
	}
	a := &Agent{Config: cfg, cri: client, metrics: metrics, workers: map[types.UID]*worker{}}
	a.pods = cfg.Informers.Core().V1().Pods().Informer()
	svc := cfg.Informers.Core().V1().Services()
	a.services, a.svcReady = svc.Lister(), svc.Informer().HasSynced
	if a.Cgroups == nil {
		if a.CgroupDriver == "" {
			a.CgroupDriver = cgroupDriver(context.Background(), client)
		}
		if a.Cgroups, err = cgroup.New(a.CgroupDriver); err != nil {
			return nil, fmt.Errorf("node agent: %w", err)
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, fmt.Errorf("node agent: %w", err)
	}
	if a.sysctls, err = sysctl.New(strings.TrimSpace(string(kernel)), cfg.AllowedUnsafeSysctls); err != nil {
		return nil, fmt.Errorf("node agent: %w", err)
	}
	a.users = &userns.Allocator{Pods: filepath.Join(cfg.RootDir, "pods")}
	a.status = newNodeStatus(a, thresholds)
	a.images = newImagePuller(a)
	a.stats = newStats(a)
	a.imageGC = newImageGC(a)
	a.eviction = newEviction(a, thresholds)
	a.static = newStaticPods(a)
	return a, nil
}

// Run registers the node, keeps its status and its lease, and runs its pods
// until ctx ends. Containers keep running when it returns.
func (a *Agent) Run(ctx context.Context) error {
	log := klog.FromContext(ctx).WithValues("node", a.NodeName)
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, log))
	defer cancel()
	a.ctx = ctx
	if err := os.MkdirAll(filepath.Join(a.RootDir, "pods"), 0o750); err != nil {
		return fmt.Errorf("node agent: %w", err)
	}
	if err := os.MkdirAll(a.LogDir, 0o755); err != nil {
		return fmt.Errorf("node agent: %w", err)
	}
	a.wg.Go(func() {
		// First, so that a node which starts under pressure is sent no pods.
		if err := a.eviction.Look(ctx); err != nil && ctx.Err() == nil {
			log.Error(err, "Reading the node's stats failed")
		}
		a.wg.Go(func() { a.status.run(ctx) })
		a.eviction.Run(ctx)
	})

	handle, err := a.pods.AddEventHandler(cache.FilteringResourceEventHandler{
		FilterFunc: func(obj any) bool {
			if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = t.Obj
			}
			pod, ok := obj.(*v1.Pod)
			return ok && pod.Spec.NodeName == a.NodeName
		},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { a.podChanged(obj.(*v1.Pod)) },
			UpdateFunc: func(_, obj any) { a.podChanged(obj.(*v1.Pod)) },
			DeleteFunc: func(obj any) {
				if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
					obj = t.Obj
				}
				if pod, ok := obj.(*v1.Pod); ok {
					a.podGone(pod)
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("node agent: watching pods: %w", err)
	}
	defer a.pods.RemoveEventHandler(handle)

	a.wg.Go(func() {
		a.cri.WatchPods(ctx, a.Clock, func(uid string) {
			a.mu.Lock()
			w := a.workers[types.UID(uid)]
			a.mu.Unlock()
			if w != nil {
				w.runtimeChanged()
			}
		})
	})
	a.wg.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), handle.HasSynced) {
			a.housekeep(ctx)
		}
	})
	a.mu.Lock()
	a.static.synced = handle.HasSynced
	a.mu.Unlock()
	a.wg.Go(func() { a.static.run(ctx) })
	a.wg.Go(func() { a.rotateLogs(ctx) })
	a.wg.Go(func() { a.imageGC.Run(ctx) })
	<-ctx.Done()
	a.wg.Wait()
	return nil
}

func (a *Agent) podChanged(pod *v1.Pod) {
	if static.IsMirror(pod) {
		a.static.mirrorChanged(fullName(pod), pod)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.workers[pod.UID]
	if w == nil {
		w = newWorker(a, pod)
		a.workers[pod.UID] = w
		a.wg.Go(func() { w.run(a.ctx) })
		return
	}
	w.podChanged(pod)
}

func (a *Agent) podGone(pod *v1.Pod) {
	if static.IsMirror(pod) {
		a.static.mirrorChanged(fullName(pod), nil)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[pod.UID]; w != nil {
		w.podGone()
	}
}

func (a *Agent) forget(w *worker) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.workers[w.uid] == w {
		delete(a.workers, w.uid)
	}
	p := w.latest()
	a.metrics.Forget(p.Namespace, p.Name, string(p.UID))
	a.static.notify()
}

func (a *Agent) podDir(uid types.UID) string { return filepath.Join(a.RootDir, "pods", string(uid)) }

func (a *Agent) podLogDir(pod *v1.Pod) string {
	return filepath.Join(a.LogDir, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// CRI is the runtime's client.
func (a *Agent) CRI() *cri.Client { return a.cri }

// Pods are the pods of this node, each with the status last computed here.
func (a *Agent) Pods() []*v1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*v1.Pod, 0, len(a.workers))
	for _, w := range a.workers {
		out = append(out, w.snapshot())
	}
	return out
}

func (a *Agent) find(namespace, name string, uid types.UID) (*worker, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.workers {
		p := w.latest()
		if p.Namespace == namespace && p.Name == name && (uid == "" || uid == p.UID || w.mirrorUID(uid)) {
			return w, nil
		}
	}
	return nil, fmt.Errorf("pod %q does not exist", name+"_"+namespace)
}

// ContainerID finds the newest container of that name in a pod, or with
// previous the one before it, and the path of its log. An empty podUID means
// any.
func (a *Agent) ContainerID(podNamespace, podName string, podUID types.UID, container string, previous bool) (id, logPath string, err error) {
	w, err := a.find(podNamespace, podName, podUID)
	if err != nil {
		return "", "", err
	}
	obs, err := w.observe(a.ctx)
	if err != nil {
		return "", "", err
	}
	list := obs.containers[container]
	n := 0
	if previous {
		n = 1
	}
	if len(list) <= n {
		if previous {
			return "", "", fmt.Errorf("previous terminated container %q in pod %q not found", container, podName)
		}
		return "", "", fmt.Errorf("container %q in pod %q is not available", container, podName)
	}
	return list[n].Id, list[n].LogPath, nil
}

// ContainerStatus is the runtime's status of a container.
func (a *Agent) ContainerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	r, err := a.cri.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return nil, err
	}
	return r.Status, nil
}

// Sandbox is the ID of the pod's sandbox.
func (a *Agent) Sandbox(namespace, name string) (string, error) {
	w, err := a.find(namespace, name, "")
	if err != nil {
		return "", err
	}
	obs, err := w.observe(a.ctx)
	if err != nil {
		return "", err
	}
	if sb := obs.ready(); sb != nil {
		return sb.Id, nil
	}
	return "", fmt.Errorf("sandbox of pod %q not found", name+"_"+namespace)
}

// Stats measures the node and its pods.
func (a *Agent) Stats() *stats.Provider { return a.stats }

// Metrics counts what the agent does.
func (a *Agent) Metrics() *nodemetrics.Metrics { return a.metrics }

// Allocatable gives the node's resources for pods.
func (a *Agent) Allocatable() v1.ResourceList { return a.status.allocatable() }
