// Package peer reduces pods to what the networks of other nodes need of them. A node's
// credentials are on a machine that runs other people's containers: whoever takes them reads no
// more of the pods of other nodes than this, no environment, arguments or annotations.
package peer

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// View is the name of the view (apiserver.ViewPrefix), and of the subresource of pods whose
// list and watch are the rights to it.
const View = "network"

// Reduce returns the pod with the fields that network policies read: labels, node, addresses,
// ports, and what tells whether the addresses are the pod's. Another object is returned empty.
func Reduce(obj runtime.Object) runtime.Object {
	p, ok := obj.(*v1.Pod)
	if !ok {
		return &v1.Pod{}
	}
	out := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion, Labels: p.Labels,
		CreationTimestamp: p.CreationTimestamp, DeletionTimestamp: p.DeletionTimestamp},
		Spec: v1.PodSpec{NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork}, Status: v1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs}}
	if mirror := p.Annotations[v1.MirrorPodAnnotationKey]; mirror != "" {
		out.Annotations = map[string]string{v1.MirrorPodAnnotationKey: mirror}
	}
	for _, c := range p.Spec.Containers {
		if len(c.Ports) > 0 {
			out.Spec.Containers = append(out.Spec.Containers, v1.Container{Ports: c.Ports})
		}
	}
	for _, c := range p.Spec.InitContainers {
		if len(c.Ports) > 0 {
			out.Spec.InitContainers = append(out.Spec.InitContainers, v1.Container{Ports: c.Ports, RestartPolicy: c.RestartPolicy})
		}
	}
	return out
}
