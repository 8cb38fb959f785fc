package plugins

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// Owners knows the objects that select pods.
type Owners struct {
	Services               corelisters.ServiceLister
	ReplicationControllers corelisters.ReplicationControllerLister
	ReplicaSets            appslisters.ReplicaSetLister
	StatefulSets           appslisters.StatefulSetLister
}

// Selector returns the conjunction of the selectors of a pod's services and of
// its controller. It is empty for a pod that has none of them.
func (o *Owners) Selector(pod *v1.Pod) labels.Selector {
	set := labels.Set{}
	services, err := o.Services.Services(pod.Namespace).List(labels.Everything())
	if err == nil {
		for _, s := range services {
			if len(s.Spec.Selector) > 0 && labels.Set(s.Spec.Selector).AsSelectorPreValidated().Matches(labels.Set(pod.Labels)) {
				set = labels.Merge(set, s.Spec.Selector)
			}
		}
	}
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return set.AsSelector()
	}
	switch owner.APIVersion + " " + owner.Kind {
	case "v1 ReplicationController":
		if rc, err := o.ReplicationControllers.ReplicationControllers(pod.Namespace).Get(owner.Name); err == nil {
			set = labels.Merge(set, rc.Spec.Selector)
		}
	case "apps/v1 ReplicaSet":
		if rs, err := o.ReplicaSets.ReplicaSets(pod.Namespace).Get(owner.Name); err == nil {
			return and(set, rs.Spec.Selector)
		}
	case "apps/v1 StatefulSet":
		if ss, err := o.StatefulSets.StatefulSets(pod.Namespace).Get(owner.Name); err == nil {
			return and(set, ss.Spec.Selector)
		}
	}
	return set.AsSelector()
}

func and(set labels.Set, with *metav1.LabelSelector) labels.Selector {
	out := set.AsSelector()
	sel, err := metav1.LabelSelectorAsSelector(with)
	if err != nil {
		return out
	}
	if reqs, ok := sel.Requirements(); ok {
		out = out.Add(reqs...)
	}
	return out
}
