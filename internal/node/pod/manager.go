package pod

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/admission"
	"keelson.dev/keelson/internal/node/convert"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/dra"
	"keelson.dev/keelson/internal/node/exclusive"
	"keelson.dev/keelson/internal/node/hostport"
	"keelson.dev/keelson/internal/node/image"
	"keelson.dev/keelson/internal/node/imagevolume"
	"keelson.dev/keelson/internal/node/layout"
	"keelson.dev/keelson/internal/node/nodemetrics"
	"keelson.dev/keelson/internal/node/preemption"
	"keelson.dev/keelson/internal/node/shares"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/trace"
)

// Volumes makes the volumes of pods.
type Volumes interface {
	// Mount makes all volumes of the pod ready, by volume name. The error of
	// those that failed is a volume.Failed, with the time to try again.
	Mount(ctx context.Context, pod *v1.Pod) (map[string]volume.Mounted, error)
	// SubPath makes a path in a volume of the pod ready, for the mount of this
	// index of a container.
	SubPath(pod types.UID, v volume.Mounted, name, container string, index int, path string) (string, error)
	// Mounted returns a volume of the pod that is ready.
	Mounted(pod types.UID, name string) (volume.Mounted, bool)
	// Stats returns the figures that the driver of a volume has of it, nil for none.
	Stats(pod types.UID, name string) *statsapi.FsStats
	// Unmount takes down whatever the pod has mounted.
	Unmount(ctx context.Context, uid types.UID) error
	// Pods returns the pods that have something mounted.
	Pods() []types.UID
}

// Policies enforces the network policies that select a pod of this node.
type Policies interface {
	// Admit returns when the policies for the pod, which has these addresses, are
	// enforced.
	Admit(ctx context.Context, pod *v1.Pod, addresses []netip.Addr) error
	// Forget is called when the pod has them no more.
	Forget(pod *v1.Pod)
}

// Config configures a Manager.
type Config struct {
	// NodeIPs returns the node's addresses.
	NodeIPs   func() []net.IP
	Client    kubernetes.Interface
	CRI       *cri.Client
	Layout    layout.Layout
	Converter *convert.Converter
	Admission *admission.Checker
	Images    *image.Puller
	Volumes   Volumes
	// ImageVolumes mounts images where the runtime does not.
	ImageVolumes *imagevolume.Mounter
	// Devices prepares those of resource claims.
	Devices *dra.Manager
	// Exclusive has what containers are given for themselves.
	Exclusive *exclusive.Manager
	Shares    *shares.Shares
	HostPorts hostport.Mapper // nil where the network maps them itself
	Policies  Policies        // nil where they are not enforced
	Metrics   *nodemetrics.Metrics
	Recorder  record.EventRecorder
	Trace     *trace.Reporter // of the pods' phases; may be nil
	Clock     clock.WithTicker
	// MaxRestartPause is the longest pause before a container that crashes is started
	// again, backoff.Max where 0.
	MaxRestartPause time.Duration
	// Gone is called when nothing of a pod is left on the node.
	Gone func(*v1.Pod)
}

// Manager runs the pods of a node.
type Manager struct {
	Config

	mu      sync.Mutex
	workers map[types.UID]*worker
	ctx     context.Context // workers live in it
	wg      sync.WaitGroup

	// taking is held while a pod takes what it asks for of the node: one that is admitted, or resized.
	taking sync.Mutex
}

// New makes a manager without pods, whose workers end with ctx of Start.
func New(c Config) *Manager { return &Manager{Config: c, workers: map[types.UID]*worker{}} }

// Start makes pods that are added from now on run until ctx ends.
func (m *Manager) Start(ctx context.Context) { m.ctx = ctx }

// Wait returns when all that was started has ended, after the context of Start.
func (m *Manager) Wait() { m.wg.Wait() }

// Changed takes a pod of the API that is bound to this node, as it is now.
func (m *Manager) Changed(pod *v1.Pod) {
	pod = fromAPI(pod)
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.workers[pod.UID]; w != nil {
		w.podChanged(pod)
		return
	}
	m.add(newWorker(m, pod))
}

// add starts a worker; m.mu is held.
func (m *Manager) add(w *worker) {
	m.workers[w.uid] = w
	m.wg.Go(func() { w.run(m.ctx) })
}

// Removed ends the pod of this UID: it is no longer in the API, or in the
// manifests.
func (m *Manager) Removed(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.workers[uid]; w != nil {
		w.podGone()
	}
}

// RuntimeChanged wakes the pod's worker after an event of the runtime.
func (m *Manager) RuntimeChanged(uid types.UID) {
	if w := m.worker(uid); w != nil {
		w.notify()
	}
}

func (m *Manager) worker(uid types.UID) *worker {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.workers[uid]
}

func (m *Manager) forget(w *worker) {
	m.mu.Lock()
	if m.workers[w.uid] == w {
		delete(m.workers, w.uid)
	}
	m.mu.Unlock()
	p := w.latest()
	m.Metrics.Forget(p.Namespace, p.Name, string(p.UID))
	m.Gone(p)
}

// Pods returns the pods of this node, each with the status last computed here.
func (m *Manager) Pods() []*v1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*v1.Pod, 0, len(m.workers))
	for _, w := range m.workers {
		out = append(out, w.snapshot())
	}
	return out
}

// Admitted returns those of the pods that have their place on the node: this agent has admitted them, or
// one before it has. Those that make room for another one have none any more.
func (m *Manager) Admitted() []*v1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*v1.Pod
	for _, w := range m.workers {
		if f := w.ending.imposed.Load(); f != nil && f.Reason == preemption.Reason {
			continue
		}
		if p := w.snapshot(); w.admitted.Load() || p.Status.StartTime != nil {
			out = append(out, p)
		}
	}
	return out
}

// Known reports whether the pod is on this node.
func (m *Manager) Known(uid types.UID) bool { return m.worker(uid) != nil }

// Fail ends a pod from the node's side; the first reason counts.
func (m *Manager) Fail(uid types.UID, f *Failure) {
	if w := m.worker(uid); w != nil {
		w.fail(f)
	}
}

// Ended reports whether nothing of the pod runs, and its volumes are gone.
func (m *Manager) Ended(uid types.UID) bool {
	w := m.worker(uid)
	return w == nil || w.ending.over()
}

// Refresh has each pod looked at again, because something changed that all of their
// statuses tell, like the node's addresses.
func (m *Manager) Refresh() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
		w.notify()
	}
}

func (m *Manager) find(namespace, name string, uid types.UID) (*worker, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
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
func (m *Manager) ContainerID(podNamespace, podName string, podUID types.UID, container string, previous bool) (id, logPath string, err error) {
	w, err := m.find(podNamespace, podName, podUID)
	if err != nil {
		return "", "", err
	}
	obs, err := w.history.observe(m.ctx)
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

// Running reports whether the container of this ID of a pod runs, by the status last
// computed, and whether that tells it: it may be behind a start, but not behind an end.
func (m *Manager) Running(namespace, name, container, id string) (running, known bool) {
	w, err := m.find(namespace, name, "")
	if err != nil {
		return false, true
	}
	s := w.report.last()
	if s == nil {
		return false, false
	}
	for _, list := range [][]v1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			c := &list[i]
			if c.Name != container {
				continue
			}
			if t := c.LastTerminationState.Terminated; t != nil && t.ContainerID == m.containerID(id) {
				return false, true
			}
			return c.State.Running != nil, c.ContainerID == m.containerID(id) && c.State.Waiting == nil
		}
	}
	return false, false
}

// Sandbox returns the ID of the pod's sandbox.
func (m *Manager) Sandbox(namespace, name string) (string, error) {
	w, err := m.find(namespace, name, "")
	if err != nil {
		return "", err
	}
	obs, err := w.history.observe(m.ctx)
	if err != nil {
		return "", err
	}
	if sb := obs.ready(); sb != nil {
		return sb.Id, nil
	}
	return "", fmt.Errorf("sandbox of pod %q not found", name+"_"+namespace)
}

// containerID returns a container's ID as statuses have it.
func (m *Manager) containerID(id string) string { return m.CRI.RuntimeName + "://" + id }
