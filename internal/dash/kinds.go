package dash

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api"
)

// class is what an object is in the picture.
type class uint8

const (
	node class = iota
	owner
	pod
	classes
)

// String returns the class as lines name it.
func (c class) String() string { return [classes]string{"node", "owner", "pod"}[c] }

// workload is a kind of owners.
type workload struct {
	group, resource, kind string
	// count returns how many pods are wanted, and how many are ready.
	count func(runtime.Object) (desired, ready int32)
}

// workloads are the kinds that are shown as they are; of another owner only what its
// pods say is shown, its kind and name. Parents are before their children.
var workloads = []workload{
	{"batch", "cronjobs", "CronJob", func(o runtime.Object) (int32, int32) {
		n := int32(len(o.(*batchv1.CronJob).Status.Active)) //nolint:gosec // few
		return n, n
	}},
	{"batch", "jobs", "Job", func(o runtime.Object) (int32, int32) {
		j := o.(*batchv1.Job)
		desired, ready := number(j.Spec.Parallelism, 1), number(j.Status.Ready, 0)
		if j.Spec.Completions != nil {
			desired = max(0, min(desired, *j.Spec.Completions-j.Status.Succeeded))
		}
		return desired, ready
	}},
	{"apps", "deployments", "Deployment", func(o runtime.Object) (int32, int32) {
		d := o.(*appsv1.Deployment)
		return number(d.Spec.Replicas, 1), d.Status.ReadyReplicas
	}},
	{"apps", "statefulsets", "StatefulSet", func(o runtime.Object) (int32, int32) {
		s := o.(*appsv1.StatefulSet)
		return number(s.Spec.Replicas, 1), s.Status.ReadyReplicas
	}},
	{"apps", "daemonsets", "DaemonSet", func(o runtime.Object) (int32, int32) {
		s := o.(*appsv1.DaemonSet).Status
		return s.DesiredNumberScheduled, s.NumberReady
	}},
	{"", "replicationcontrollers", "ReplicationController", func(o runtime.Object) (int32, int32) {
		c := o.(*v1.ReplicationController)
		return number(c.Spec.Replicas, 1), c.Status.ReadyReplicas
	}},
	{"", "services", "Service", func(runtime.Object) (int32, int32) { return 0, 0 }},
	{"apps", "replicasets", "ReplicaSet", func(o runtime.Object) (int32, int32) {
		r := o.(*appsv1.ReplicaSet)
		return number(r.Spec.Replicas, 1), r.Status.ReadyReplicas
	}},
}

func number(n *int32, without int32) int32 {
	if n == nil {
		return without
	}
	return *n
}

// shown is a resource whose objects a stream shows.
type shown struct {
	class class
	*workload
	row *api.Resource
	// prefix is that of the keys of its objects, in the stream's namespace.
	prefix string
	// since is the revision of its list: later changes come from the watch.
	since int64
}
