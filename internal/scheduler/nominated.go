package scheduler

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"

	fw "keelson.dev/keelson/internal/scheduler/framework"
)

// nominated has the pods that wait for their victims on a node to end. It is
// under the snapshot's lock.
type nominated struct {
	byNode map[string]map[types.UID]*fw.PodInfo
	nodeOf map[types.UID]string
}

func newNominated() *nominated {
	return &nominated{byNode: map[string]map[types.UID]*fw.PodInfo{}, nodeOf: map[types.UID]string{}}
}

// set nominates a node for a pod; an empty name takes the nomination back.
func (o *nominated) set(pod *v1.Pod, node string) {
	if was, ok := o.nodeOf[pod.UID]; ok {
		delete(o.nodeOf, pod.UID)
		if delete(o.byNode[was], pod.UID); len(o.byNode[was]) == 0 {
			delete(o.byNode, was)
		}
	}
	if node == "" {
		return
	}
	o.nodeOf[pod.UID] = node
	if o.byNode[node] == nil {
		o.byNode[node] = map[types.UID]*fw.PodInfo{}
	}
	o.byNode[node][pod.UID] = fw.NewPodInfo(pod)
}

// before lists the pods nominated for a node that go before pod: they are
// treated as if they ran there already.
func (o *nominated) before(pod *v1.Pod, node string) (out []*fw.PodInfo) {
	for uid, p := range o.byNode[node] {
		if uid != pod.UID && corev1helpers.PodPriority(p.Pod) >= corev1helpers.PodPriority(pod) {
			out = append(out, p)
		}
	}
	return out
}

// after lists those that pod goes before.
func (o *nominated) after(pod *v1.Pod, node string) (out []*v1.Pod) {
	for _, p := range o.byNode[node] {
		if corev1helpers.PodPriority(p.Pod) < corev1helpers.PodPriority(pod) {
			out = append(out, p.Pod)
		}
	}
	return out
}

// matter reports whether any nomination goes before pod.
func (o *nominated) matter(pod *v1.Pod) bool {
	for node := range o.byNode {
		if len(o.before(pod, node)) > 0 {
			return true
		}
	}
	return false
}
