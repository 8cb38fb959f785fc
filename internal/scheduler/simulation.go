package scheduler

import (
	"context"
	"math/rand/v2"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// Simulator finds the nodes on which the scheduler would place pods, with the
// scheduler's own plugins and on nodes that may be yet to come. It is for one
// goroutine.
type Simulator struct {
	s      *Scheduler
	synced []cache.InformerSynced
}

// NewSimulator registers what the plug-ins read with the informers.
func NewSimulator(inf informers.SharedInformerFactory, clk clock.WithTicker) (*Simulator, error) {
	s := &Scheduler{Options: Options{SchedulerName: v1.DefaultSchedulerName, Clock: clk, Rand: rand.IntN}, snapshot: newSnapshot(), classes: newClasses(), nominated: newNominated()}
	s.profile = defaultProfile(s.snapshot, nil, inf)
	m := &Simulator{s: s}
	for _, informer := range read(inf) {
		m.synced = append(m.synced, informer.HasSynced)
	}
	if _, err := inf.Resource().V1().DeviceClasses().Informer().AddEventHandler(s.profile.devices.Extended); err != nil {
		return nil, err
	}
	return m, nil
}

// read returns the informers that plug-ins read.
func read(inf informers.SharedInformerFactory) []cache.SharedIndexInformer {
	core, storage, dra := inf.Core().V1(), inf.Storage().V1(), inf.Resource().V1()
	return []cache.SharedIndexInformer{
		core.Namespaces().Informer(), core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(), core.Services().Informer(),
		core.ReplicationControllers().Informer(), storage.StorageClasses().Informer(), storage.CSINodes().Informer(),
		dra.ResourceClaims().Informer(), dra.ResourceSlices().Informer(), dra.DeviceTaintRules().Informer(), dra.DeviceClasses().Informer(),
		inf.Apps().V1().ReplicaSets().Informer(), inf.Apps().V1().StatefulSets().Informer(),
	}
}

// Synced waits until what the plug-ins read is there, or ctx ends, and reports which.
func (m *Simulator) Synced(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), m.synced...)
}

// Reset begins anew, on nodes and the pods that are bound to them.
func (m *Simulator) Reset(nodes []*v1.Node, pods []*v1.Pod) {
	old, empty := m.s.snapshot, newSnapshot()
	old.mu.Lock()
	old.nodes, old.list, old.pods, old.images, old.affinity, old.elements = empty.nodes, empty.list, empty.pods, empty.images, empty.affinity, empty.elements
	old.recent.Init()
	old.mu.Unlock()
	m.s.classes = newClasses()
	m.s.profile.volumes.Changed()
	m.s.profile.devices.Changed()
	for _, n := range nodes {
		m.AddNode(n)
	}
	for _, p := range pods {
		if p.Spec.NodeName != "" && !terminal(p) {
			m.s.snapshot.place(p, p.Spec.NodeName)
		}
	}
}

// AddNode adds a node.
func (m *Simulator) AddNode(n *v1.Node) { m.s.snapshot.setNode(n) }

// RemoveNode takes a node away; its pods are to be removed first.
func (m *Simulator) RemoveNode(name string) { m.s.snapshot.removeNode(name) }

// Place puts pod onto the node where the scheduler would put it, without preemption,
// and returns the node's name.
func (m *Simulator) Place(ctx context.Context, pod *v1.Pod) (string, error) {
	s := m.s.snapshot
	s.mu.Lock()
	defer s.mu.Unlock()
	node, err := m.s.place(ctx, fw.NewCycleState(), pod)
	if err != nil {
		return "", err
	}
	s.placeLocked(fw.NewPodInfo(pod), node, true)
	return node, nil
}

// Put puts pod onto a node, whether it fits or not.
func (m *Simulator) Put(pod *v1.Pod, node string) { m.s.snapshot.place(pod, node) }

// Remove takes a pod away from its node.
func (m *Simulator) Remove(pod *v1.Pod) { m.s.snapshot.remove(pod) }
