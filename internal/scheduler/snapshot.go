package scheduler

import (
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
	mu     sync.Mutex
	nodes  map[string]*fw.NodeInfo // may lack Node: pods came first
	list   []*fw.NodeInfo          // those with Node, by name
	pods   map[types.UID]placed
	images map[string]*fw.ImageState
}

type placed struct {
	node    string
	info    *fw.PodInfo
	assumed bool
}

func newSnapshot() *snapshot {
	return &snapshot{nodes: map[string]*fw.NodeInfo{}, pods: map[types.UID]placed{}, images: map[string]*fw.ImageState{}}
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
	for _, n := range s.list {
		if n.WithAffinity > 0 {
			f(n)
		}
	}
}

// Image implements framework.View.
func (s *snapshot) Image(name string) *fw.ImageState { return s.images[name] }

func byName(a *fw.NodeInfo, name string) int { return strings.Compare(a.Node.Name, name) }

func (s *snapshot) setNode(node *v1.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[node.Name]
	if n == nil {
		n = &fw.NodeInfo{}
		s.nodes[node.Name] = n
	}
	if n.Node == nil {
		i, _ := slices.BinarySearchFunc(s.list, node.Name, byName)
		s.list = slices.Insert(slices.Clone(s.list), i, n)
	} else {
		s.forgetImages(n.Node)
	}
	n.SetNode(node)
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
	if len(n.Pods) == 0 {
		delete(s.nodes, name)
	}
}

// place puts a pod onto its node, or replaces what is known of it.
func (s *snapshot) place(pod *v1.Pod, node string, assumed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.placeLocked(pod, node, assumed)
}

func (s *snapshot) placeLocked(pod *v1.Pod, node string, assumed bool) {
	s.removeLocked(pod)
	n := s.nodes[node]
	if n == nil {
		n = &fw.NodeInfo{}
		s.nodes[node] = n
	}
	info := fw.NewPodInfo(pod)
	n.AddPod(info)
	s.pods[pod.UID] = placed{node, info, assumed}
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
		if n.Node == nil && len(n.Pods) == 0 {
			delete(s.nodes, p.node)
		}
	}
}

// unassume takes an assumed pod back, if it is still only assumed.
func (s *snapshot) unassume(pod *v1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.pods[pod.UID]; ok && p.assumed {
		s.removeLocked(pod)
	}
}
