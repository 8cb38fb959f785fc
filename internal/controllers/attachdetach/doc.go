// Package attachdetach attaches the volumes of pods to the pods' nodes, and detaches them when no pod
// needs them there (https://kubernetes.io/docs/concepts/storage/volumes/#csi,
// https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#non-graceful-node-shutdown).
//
// It writes VolumeAttachments, which a driver's attacher acts on, and node.status.volumesAttached, which
// the node's agent waits for. A volume that the agent reports in use is detached by force only: when its
// node has been unhealthy for six minutes, or has the out-of-service taint.
package attachdetach
