package quota

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	quota "k8s.io/apiserver/pkg/quota/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubectl/pkg/util/qos"
	"k8s.io/utils/clock"
)

const (
	countPods      v1.ResourceName = "count/pods"
	requestsPrefix                 = v1.DefaultResourceRequestsPrefix
)

var podResources = []v1.ResourceName{
	countPods, v1.ResourcePods,
	v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage,
	v1.ResourceRequestsCPU, v1.ResourceRequestsMemory, v1.ResourceRequestsEphemeralStorage,
	v1.ResourceLimitsCPU, v1.ResourceLimitsMemory, v1.ResourceLimitsEphemeralStorage,
}

// mustSpecify are the resources that every container has to state where a
// quota is on them.
var mustSpecify = []v1.ResourceName{
	v1.ResourceCPU, v1.ResourceMemory, v1.ResourceRequestsCPU, v1.ResourceRequestsMemory, v1.ResourceLimitsCPU, v1.ResourceLimitsMemory,
}

func native(name string) bool {
	return !strings.Contains(name, "/") || strings.Contains(name, v1.ResourceDefaultNamespacePrefix)
}

func pods(list Lister, c clock.PassiveClock) quota.Evaluator {
	resource := v1.Resource("pods")
	return &evaluator{
		resource: resource,
		list:     of(list, resource),
		handles: func(a admission.Attributes) bool {
			return a.GetSubresource() == "" && a.GetOperation() == admission.Create || a.GetSubresource() == "resize" && a.GetOperation() == admission.Update
		},
		matching: func(names []v1.ResourceName) (out []v1.ResourceName) {
			for _, n := range names {
				s := string(n)
				if slices.Contains(podResources, n) || strings.HasPrefix(s, v1.ResourceHugePagesPrefix) || strings.HasPrefix(s, v1.ResourceRequestsHugePagesPrefix) ||
					strings.HasPrefix(s, requestsPrefix) && !native(s) {
					out = append(out, n)
				}
			}
			return out
		},
		scope: func(s v1.ScopedResourceSelectorRequirement, obj runtime.Object) (bool, error) {
			pod, err := as[*v1.Pod](obj)
			if err != nil {
				return false, err
			}
			return podInScope(s, pod)
		},
		constraints: func(required []v1.ResourceName, obj runtime.Object) error {
			pod, err := as[*v1.Pod](obj)
			if err != nil {
				return err
			}
			return specified(required, pod)
		},
		usage: func(obj runtime.Object) (v1.ResourceList, error) {
			pod, err := as[*v1.Pod](obj)
			if err != nil {
				return nil, err
			}
			return podUsage(pod, c.Now()), nil
		},
	}
}

func as[T runtime.Object](obj runtime.Object) (T, error) {
	o, ok := obj.(T)
	if !ok {
		return o, fmt.Errorf("expected %T, got %T", o, obj)
	}
	return o, nil
}

func podInScope(s v1.ScopedResourceSelectorRequirement, pod *v1.Pod) (bool, error) {
	terminating := pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds >= 0
	switch s.ScopeName {
	case v1.ResourceQuotaScopeTerminating:
		return terminating, nil
	case v1.ResourceQuotaScopeNotTerminating:
		return !terminating, nil
	case v1.ResourceQuotaScopeBestEffort:
		return qos.ComputePodQOS(pod) == v1.PodQOSBestEffort, nil
	case v1.ResourceQuotaScopeNotBestEffort:
		return qos.ComputePodQOS(pod) != v1.PodQOSBestEffort, nil
	case v1.ResourceQuotaScopePriorityClass:
		return selects(s, pod.Spec.PriorityClassName)
	case v1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossNamespace(pod.Spec.Affinity), nil
	}
	return false, nil
}

// crossNamespace reports whether the pod looks for others in other namespaces.
func crossNamespace(a *v1.Affinity) bool {
	if a == nil {
		return false
	}
	var terms []v1.PodAffinityTerm
	weighted := func(ws []v1.WeightedPodAffinityTerm) {
		for i := range ws {
			terms = append(terms, ws[i].PodAffinityTerm)
		}
	}
	if p := a.PodAffinity; p != nil {
		terms = append(terms, p.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted(p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		terms = append(terms, p.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted(p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return slices.ContainsFunc(terms, func(t v1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil })
}

// specified is an error that names the containers without a value for a resource
// that a quota is on, nil if there are none.
func specified(required []v1.ResourceName, pod *v1.Pod) error {
	missing := map[v1.ResourceName][]string{}
	each := func(cs []v1.Container) {
		for i := range cs {
			used := computeUsage(cs[i].Resources.Requests, cs[i].Resources.Limits)
			for _, n := range mustSpecify {
				if _, ok := used[n]; !ok && slices.Contains(required, n) && !slices.Contains(missing[n], cs[i].Name) {
					missing[n] = append(missing[n], cs[i].Name)
				}
			}
		}
	}
	each(pod.Spec.Containers)
	each(pod.Spec.InitContainers)
	if len(missing) == 0 {
		return nil
	}
	var texts []string
	for n, names := range missing {
		slices.Sort(names)
		texts = append(texts, fmt.Sprintf("%s for: %s", n, strings.Join(names, ",")))
	}
	slices.Sort(texts)
	return fmt.Errorf("must specify %s", strings.Join(texts, "; "))
}

// ended reports whether the pod holds nothing of a node any more.
func ended(pod *v1.Pod, now time.Time) bool {
	if pod.Status.Phase == v1.PodFailed || pod.Status.Phase == v1.PodSucceeded {
		return true
	}
	return pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil &&
		now.After(pod.DeletionTimestamp.Add(time.Duration(*pod.DeletionGracePeriodSeconds)*time.Second))
}

// podUsage returns a pod's usage; one that has ended still counts as an object.
func podUsage(pod *v1.Pod, now time.Time) v1.ResourceList {
	if ended(pod, now) {
		return v1.ResourceList{countPods: one()}
	}
	o := resourcehelper.PodResourcesOptions{UseStatusResources: true}
	out := computeUsage(resourcehelper.PodRequests(pod, o), resourcehelper.PodLimits(pod, o))
	out[countPods] = one()
	return out
}

// computeUsage names requests and limits as quotas do.
func computeUsage(requests, limits v1.ResourceList) v1.ResourceList {
	out := v1.ResourceList{v1.ResourcePods: one()}
	for _, n := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage} {
		if q, ok := requests[n]; ok {
			out[n], out[requestsPrefix+n] = q, q
		}
		if q, ok := limits[n]; ok {
			out["limits."+n] = q
		}
	}
	for n, q := range requests {
		switch s := string(n); {
		case strings.HasPrefix(s, v1.ResourceHugePagesPrefix):
			out[n], out[requestsPrefix+n] = q, q
		case !native(s):
			// Of extended resources no more can be used than is requested.
			out[requestsPrefix+n] = q
		}
	}
	return out
}
