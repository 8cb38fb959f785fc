package layout

import (
	"path/filepath"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Layout has the folders that a node keeps its pods' files in.
type Layout struct {
	// Root is the node's folder.
	Root string
	// Logs is the folder of the logs of all pods.
	Logs string
}

// Pods returns the folder that has one of each pod.
func (l Layout) Pods() string { return filepath.Join(l.Root, "pods") }

// Seccomp returns the folder of the seccomp profiles that pods name.
func (l Layout) Seccomp() string { return filepath.Join(l.Root, "seccomp") }

// Pod returns the pod's folder.
func (l Layout) Pod(uid types.UID) string { return filepath.Join(l.Pods(), string(uid)) }

// Hosts returns the file that is /etc/hosts in the pod's containers.
func (l Layout) Hosts(pod *v1.Pod) string { return filepath.Join(l.Pod(pod.UID), "etc-hosts") }

// Resources returns the file with the pod's allocated resources.
func (l Layout) Resources(pod *v1.Pod) string { return filepath.Join(l.Pod(pod.UID), "resources.json") }

// Termination returns the file of a container's termination message, in its run of
// this number.
func (l Layout) Termination(pod *v1.Pod, container string, run int32) string {
	return filepath.Join(l.Pod(pod.UID), "containers", container, strconv.Itoa(int(run)))
}

// PodLogs returns the folder of the logs of the pod's containers.
func (l Layout) PodLogs(pod *v1.Pod) string {
	return filepath.Join(l.Logs, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// Log returns the file of a container's log, in its run of this number.
func (l Layout) Log(pod *v1.Pod, container string, run int32) string {
	return filepath.Join(l.PodLogs(pod), LogName(container, run))
}

// LogName returns the log's file below the folder of the pod's logs.
func LogName(container string, run int32) string {
	return filepath.Join(container, strconv.Itoa(int(run))+".log")
}
