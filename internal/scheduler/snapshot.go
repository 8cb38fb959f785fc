package scheduler

import (
	"container/list"
	"maps"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	fw "keelson.dev/keelson/internal/scheduler/framework"
	"keelson.dev/keelson/internal/scheduler/plugins"
)

// snapshot is the nodes with what runs on them. It is changed as the changes
// come, and by the scheduler itself when it has placed a pod (the pod is then
// assumed, until the API server confirms it).
type snapshot struct {
	mu       sync.Mutex
	nodes    map[string]*fw.NodeInfo // may lack Node: pods came first
	list     []*fw.NodeInfo          // those with Node, by name
	pods     map[types.UID]placed
	images   map[string]*fw.ImageState
	affinity map[*fw.NodeInfo]struct{} // those that hold pods with inter-pod terms

	// generation is the generation of the last change; recent has the nodes by
	// generation, the last changed first, so that a reader that has seen an earlier
	// generation finds what has changed since without a look at all nodes.
	generation int64
	recent     list.List
	elements   map[*fw.NodeInfo]*list.Element
	// removals counts the nodes removed.
	removals int64
}

type placed struct {
	node    string
	info    *fw.PodInfo
	assumed bool
}

func newSnapshot() *snapshot {
	return &snapshot{nodes: map[string]*fw.NodeInfo{}, pods: map[types.UID]placed{}, images: map[string]*fw.ImageState{},
		affinity: map[*fw.NodeInfo]struct{}{}, elements: map[*fw.NodeInfo]*list.Element{}}
}

// changed marks a node as changed.
func (s *snapshot) changed(n *fw.NodeInfo) {
	s.generation++
	n.Generation = s.generation
	if e := s.elements[n]; e != nil {
		s.recent.MoveToFront(e)
	} else {
		s.elements[n] = s.recent.PushFront(n)
	}
	if n.Node != nil && n.WithAffinity > 0 {
		s.affinity[n] = struct{}{}
	} else {
		delete(s.affinity, n)
	}
}

// since calls f for the nodes that changed after a generation.
func (s *snapshot) since(generation int64, f func(*fw.NodeInfo)) {
	for e := s.recent.Front(); e != nil; e = e.Next() {
		n := e.Value.(*fw.NodeInfo)
		if n.Generation <= generation {
			return
		}
		f(n)
	}
}

// node finds or makes the place for what is known of a node.
func (s *snapshot) node(name string) *fw.NodeInfo {
	n := s.nodes[name]
	if n == nil {
		n = &fw.NodeInfo{}
		s.nodes[name] = n
	}
	return n
}

// drop forgets a node of which nothing is left.
func (s *snapshot) drop(name string, n *fw.NodeInfo) {
	if n.Node != nil || len(n.Pods) > 0 {
		return
	}
	delete(s.nodes, name)
	delete(s.affinity, n)
	if e := s.elements[n]; e != nil {
		s.recent.Remove(e)
		delete(s.elements, n)
	}
}

// Nodes implements framework.View.
func (s *snapshot) Nodes() []*fw.NodeInfo { return s.list }

// Node implements framework.View.
func (s *snapshot) Node(name string) *fw.NodeInfo {
	if n := s.nodes[name]; n != nil && n.Node != nil {
		return n
	}
	return nil
}

// NodesWithAffinity implements framework.View.
func (s *snapshot) NodesWithAffinity(f func(*fw.NodeInfo)) {
	for n := range s.affinity {
		f(n)
	}
}

// AnyAffinity implements framework.View.
func (s *snapshot) AnyAffinity() bool { return len(s.affinity) > 0 }

// Image implements framework.View.
func (s *snapshot) Image(name string) *fw.ImageState { return s.images[name] }

func byName(a *fw.NodeInfo, name string) int { return strings.Compare(a.Node.Name, name) }

func (s *snapshot) setNode(node *v1.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.node(node.Name)
	if n.Node == nil {
		i, _ := slices.BinarySearchFunc(s.list, node.Name, byName)
		s.list = slices.Insert(slices.Clone(s.list), i, n)
	} else {
		s.forgetImages(n.Node)
	}
	n.SetNode(node)
	s.changed(n)
	for i := range node.Status.Images {
		for _, name := range node.Status.Images[i].Names {
			st := s.images[plugins.NormalizeImage(name)]
			if st == nil {
				st = &fw.ImageState{Nodes: sets.New[string]()}
				s.images[plugins.NormalizeImage(name)] = st
			}
			st.Size = node.Status.Images[i].SizeBytes
			st.Nodes.Insert(node.Name)
		}
	}
}

// refreshNode replaces the object of a node of which nothing has changed that
// scheduling reads.
func (s *snapshot) refreshNode(node *v1.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[node.Name]; n != nil && n.Node != nil {
		n.Node = node
	}
}

func (s *snapshot) forgetImages(node *v1.Node) {
	for i := range node.Status.Images {
		for _, name := range node.Status.Images[i].Names {
			if st := s.images[plugins.NormalizeImage(name)]; st != nil {
				if st.Nodes.Delete(node.Name); st.Nodes.Len() == 0 {
					delete(s.images, plugins.NormalizeImage(name))
				}
			}
		}
	}
}

func (s *snapshot) removeNode(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[name]
	if n == nil || n.Node == nil {
		return
	}
	if i, ok := slices.BinarySearchFunc(s.list, name, byName); ok {
		s.list = slices.Delete(slices.Clone(s.list), i, i+1)
	}
	s.forgetImages(n.Node)
	n.Node = nil
	s.removals++
	s.changed(n)
	s.drop(name, n)
}

// place puts a pod onto its node, or replaces what is known of it.
func (s *snapshot) place(pod *v1.Pod, node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pods[pod.UID]
	switch {
	case ok && p.node == node && sameRequirements(p.info.Pod, pod):
		// Only its status has changed, as a running pod's often does.
		p.info.Pod = pod
		p.assumed = false
		s.pods[pod.UID] = p
	case ok && sameRequests(p.info.Pod, pod):
		s.placeLocked(fw.NewPodInfoOf(pod, p.info.Requests), node, false)
	default:
		s.placeLocked(fw.NewPodInfo(pod), node, false)
	}
}

// sameRequirements reports whether nothing has changed that scheduling reads of
// a pod on a node.
func sameRequirements(a, b *v1.Pod) bool {
	return a.Generation == b.Generation && (a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) && maps.Equal(a.Labels, b.Labels) &&
		sameRequests(a, b)
}

// sameRequests reports whether a pod's requests have not changed: its spec has not, or is
// the same in memory, as that of a pod whose deletion has been asked for since, which has
// another generation.
func sameRequests(a, b *v1.Pod) bool {
	return (a.Generation == b.Generation || shareContainers(a, b)) && !resizing(a) && !resizing(b)
}

// shareContainers reports whether two pods have their containers in the same memory.
func shareContainers(a, b *v1.Pod) bool {
	x, y := a.Spec.Containers, b.Spec.Containers
	return len(x) > 0 && len(x) == len(y) && &x[0] == &y[0]
}

// resizing reports whether the status says other requests than the spec.
func resizing(p *v1.Pod) bool {
	for i := range p.Status.ContainerStatuses {
		if p.Status.ContainerStatuses[i].Resources != nil {
			return true
		}
	}
	return false
}

func (s *snapshot) placeLocked(info *fw.PodInfo, node string, assumed bool) {
	s.removeLocked(info.Pod)
	n := s.node(node)
	n.AddPod(info)
	s.changed(n)
	s.pods[info.Pod.UID] = placed{node, info, assumed}
}

func (s *snapshot) remove(pod *v1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(pod)
}

func (s *snapshot) removeLocked(pod *v1.Pod) {
	p, ok := s.pods[pod.UID]
	if !ok {
		return
	}
	delete(s.pods, pod.UID)
	if n := s.nodes[p.node]; n != nil {
		n.RemovePod(p.info.Pod)
		s.changed(n)
		s.drop(p.node, n)
	}
}

// unassume takes an assumed pod back, if it is still only assumed. The
// snapshot is locked.
func (s *snapshot) unassume(pod *v1.Pod) {
	if p, ok := s.pods[pod.UID]; ok && p.assumed {
		s.removeLocked(pod)
	}
}

// size counts what the snapshot holds.
func (s *snapshot) size() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	assumed := 0
	for _, p := range s.pods {
		if p.assumed {
			assumed++
		}
	}
	return map[string]int{"nodes": len(s.list), "pods": len(s.pods), "assumed_pods": assumed}
}
