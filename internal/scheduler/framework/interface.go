package framework

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// MaxNodeScore is the best score a plugin gives after normalization.
const MaxNodeScore int64 = 100

// Plugin is the parent of all plugins.
type Plugin interface{ Name() string }

// PreFilterPlugin looks at the pod before any node: it computes state for its
// Filter, names the only nodes worth trying (nil means all), refuses the pod,
// or skips its own Filter.
type PreFilterPlugin interface {
	Plugin
	PreFilter(ctx context.Context, state *CycleState, pod *v1.Pod) (sets.Set[string], *Status)
}

// PreFilterExtensions is a PreFilterPlugin whose state depends on other pods:
// it keeps the state right when a what-if adds or removes a pod.
type PreFilterExtensions interface {
	AddPod(ctx context.Context, state *CycleState, podToSchedule *v1.Pod, toAdd *PodInfo, node *NodeInfo)
	RemovePod(ctx context.Context, state *CycleState, podToSchedule *v1.Pod, toRemove *PodInfo, node *NodeInfo)
}

// FilterPlugin reports whether a node can run the pod.
type FilterPlugin interface {
	Plugin
	Filter(ctx context.Context, state *CycleState, pod *v1.Pod, node *NodeInfo) *Status
}

// PreScorePlugin prepares its Score with the list of nodes that fit, or skips
// it.
type PreScorePlugin interface {
	Plugin
	PreScore(ctx context.Context, state *CycleState, pod *v1.Pod, nodes []*NodeInfo) *Status
}

// ScorePlugin ranks a node that fits.
type ScorePlugin interface {
	Plugin
	Score(ctx context.Context, state *CycleState, pod *v1.Pod, node *NodeInfo) (int64, *Status)
}

// ScoreNormalizer is a ScorePlugin whose scores are brought to 0..MaxNodeScore
// once all are known. scores[i] is that of nodes[i].
type ScoreNormalizer interface {
	NormalizeScore(ctx context.Context, state *CycleState, pod *v1.Pod, nodes []*NodeInfo, scores []int64)
}

// ReservePlugin keeps its own account of a pod about to be bound.
type ReservePlugin interface {
	Plugin
	Reserve(ctx context.Context, state *CycleState, pod *v1.Pod, nodeName string) *Status
	Unreserve(ctx context.Context, state *CycleState, pod *v1.Pod, nodeName string)
}

// PreBindPlugin does what must be done before the pod is bound.
type PreBindPlugin interface {
	Plugin
	PreBind(ctx context.Context, state *CycleState, pod *v1.Pod, nodeName string) *Status
}

// PostFilterPlugin looks at a pod that fits on no node. It returns a message for
// users and, if something may help the next attempt, what to do.
type PostFilterPlugin interface {
	Plugin
	PostFilter(state *CycleState, pod *v1.Pod) (message string, act func(context.Context))
}

// EnqueueExtensions is a plugin that knows which events may make a pod it
// refused schedulable.
type EnqueueExtensions interface {
	Plugin
	EventsToRegister() []EventHint
}

// NodeLocal marks a Filter or Score plugin whose raw answer for a node depends
// on that node and the pod's own spec only. Such answers are kept between pods
// with equal requirements until the node changes.
type NodeLocal interface{ nodeLocal() }

// Local is embedded by plugins that are NodeLocal.
type Local struct{}

func (Local) nodeLocal() {}

// MaxNormalizer is a ScoreNormalizer that needs to know no more of the other
// nodes than their best raw score.
type MaxNormalizer interface {
	NormalizeByMax(score, most int64) int64
}

// ImageState describes an image in the cluster.
type ImageState struct {
	Size  int64
	Nodes sets.Set[string]
}

// View is the cluster as it is during one scheduling cycle.
type View interface {
	// Nodes lists all nodes; the slice is the caller's to read only.
	Nodes() []*NodeInfo
	// Node finds a node, nil when there is none.
	Node(name string) *NodeInfo
	// NodesWithAffinity calls f for nodes that hold pods with inter-pod terms.
	NodesWithAffinity(f func(*NodeInfo))
	// AnyAffinity reports whether there are such nodes.
	AnyAffinity() bool
	// Image returns an image's state by its normalized name, or nil.
	Image(name string) *ImageState
}
