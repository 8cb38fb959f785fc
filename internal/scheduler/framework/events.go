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
	// PodUpdateLabel is a change of the waiting pod's labels.
	PodUpdateLabel
	// PodUpdateToleration is a toleration added to the waiting pod.
	PodUpdateToleration
	// PodUpdateScaleDown is a waiting pod that now requests less.
	PodUpdateScaleDown
	// ClaimChange is a PersistentVolumeClaim added or changed.
	ClaimChange
	// VolumeChange is a PersistentVolume added or changed.
	VolumeChange
	// ClassChange is a StorageClass added or changed.
	ClassChange
	// CSINodeChange is a CSINode added or changed.
	CSINodeChange
	// CapacityChange is a CSIStorageCapacity or CSIDriver added or changed.
	CapacityChange
	// ResourceClaimChange is a ResourceClaim added, changed or deleted.
	ResourceClaimChange
	// ResourceSliceChange is a ResourceSlice or DeviceTaintRule added, changed or
	// deleted.
	ResourceSliceChange
	// DeviceClassChange is a DeviceClass added or changed.
	DeviceClassChange
	// PodUpdateClaims is a change of the names of the waiting pod's generated claims.
	PodUpdateClaims
	// NamespaceUpdate is a namespace added or relabelled.
	NamespaceUpdate
	// AllEvents is every change.
	AllEvents Event = 1<<32 - 1

	// NodeChange is all that may make a node fit.
	NodeChange = NodeAdd | NodeUpdateAllocatable | NodeUpdateLabel | NodeUpdateTaint
)

// EventHint is a set of events with a test of one of them. A nil Hint always
// requeues.
type EventHint struct {
	Events Event
	// Hint reports whether the change from old to new may make pod schedulable.
	// Either is nil where there is none.
	Hint func(pod *v1.Pod, event Event, oldObj, newObj any) bool
}

var eventNames = map[Event]string{
	NodeAdd: "NodeAdd", NodeUpdateAllocatable: "NodeAllocatableChange", NodeUpdateLabel: "NodeLabelChange", NodeUpdateTaint: "NodeTaintChange", NodeDelete: "NodeDelete",
	AssignedPodAdd: "AssignedPodAdd", AssignedPodUpdateLabel: "AssignedPodUpdate", AssignedPodScaleDown: "AssignedPodUpdate", AssignedPodDelete: "AssignedPodDelete",
	ClaimChange: "PvcChange", VolumeChange: "PvChange", ClassChange: "StorageClassChange", CSINodeChange: "CSINodeChange", CapacityChange: "CSIStorageCapacityChange", NamespaceUpdate: "NamespaceUpdate",
	ResourceClaimChange: "ResourceClaimChange", ResourceSliceChange: "ResourceSliceChange", DeviceClassChange: "DeviceClassChange",
}

// String names the first of the kinds, as metrics show it.
func (e Event) String() string {
	for bit := Event(1); bit != 0; bit <<= 1 {
		if name, ok := eventNames[e&bit]; ok && e&bit != 0 {
			return name
		}
	}
	return "PodUpdate"
}
