package framework

import v1 "k8s.io/api/core/v1"

// Event is a set of kinds of change in the cluster.
type Event uint32

const (
	// NodeAdd is a new node.
	NodeAdd Event = 1 << iota
	// NodeUpdateAllocatable is a change of a node's resources.
	NodeUpdateAllocatable
	// NodeUpdateLabel is a change of a node's labels.
	NodeUpdateLabel
	// NodeUpdateTaint is a change of a node's taints or cordon.
	NodeUpdateTaint
	// NodeDelete is a node gone: topology domains change.
	NodeDelete
	// AssignedPodAdd is a pod bound to a node.
	AssignedPodAdd
	// AssignedPodUpdateLabel is a change of labels of a bound pod.
	AssignedPodUpdateLabel
	// AssignedPodScaleDown is a resize of a bound pod that frees resources.
	AssignedPodScaleDown
	// AssignedPodDelete is a bound pod that ended or was deleted.
	AssignedPodDelete
	// PodUpdate is a change of the waiting pod itself.
	PodUpdate
	// ClaimAdd is a new PersistentVolumeClaim.
	ClaimAdd
	// ClaimUpdate is a change of a PersistentVolumeClaim.
	ClaimUpdate
	// NamespaceUpdate is a namespace added or relabelled.
	NamespaceUpdate
	// AllEvents is every change.
	AllEvents Event = 1<<32 - 1
)

// EventHint is a set of events with a test of one of them. A nil Hint always
// requeues.
type EventHint struct {
	Events Event
	// Hint tells whether the change from old to new may make pod schedulable.
	// Either is nil where there is none.
	Hint func(pod *v1.Pod, event Event, oldObj, newObj any) bool
}
