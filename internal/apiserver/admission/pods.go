package admission

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
	"k8s.io/utils/ptr"
)

var podResource = v1.Resource("pods")

// newPod gives the pod that is being created, or nil.
func newPod(a admission.Attributes) *v1.Pod {
	if a.GetResource().GroupResource() != podResource || a.GetSubresource() != "" || a.GetOperation() != admission.Create {
		return nil
	}
	pod, _ := a.GetObject().(*v1.Pod)
	return pod
}

// DefaultTolerationSeconds lets pods stay for a while, by default five minutes, on
// a node that is not ready or not reachable.
type DefaultTolerationSeconds struct {
	*admission.Handler
	stay []v1.Toleration
}

// NewDefaultTolerationSeconds makes the plug-in; nil stands for five minutes.
func NewDefaultTolerationSeconds(notReady, unreachable *int64) DefaultTolerationSeconds {
	d := DefaultTolerationSeconds{Handler: admission.NewHandler(admission.Create, admission.Update)}
	for _, t := range []struct {
		key     string
		seconds *int64
	}{{v1.TaintNodeNotReady, notReady}, {v1.TaintNodeUnreachable, unreachable}} {
		d.stay = append(d.stay, v1.Toleration{Key: t.key, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute, TolerationSeconds: ptr.To(ptr.Deref(t.seconds, 300))})
	}
	return d
}

// Admit implements admission.MutationInterface.
func (d DefaultTolerationSeconds) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != podResource || a.GetSubresource() != "" {
		return nil
	}
	pod, ok := a.GetObject().(*v1.Pod)
	if !ok {
		return nil
	}
	for _, stay := range d.stay {
		tolerated := slices.ContainsFunc(pod.Spec.Tolerations, func(t v1.Toleration) bool {
			return (t.Key == stay.Key || t.Key == "") && (t.Effect == v1.TaintEffectNoExecute || t.Effect == "")
		})
		if !tolerated {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, *stay.DeepCopy())
		}
	}
	return nil
}

// Priority gives pods the priority of their class.
type Priority struct {
	*admission.Handler
	Classes schedulinglisters.PriorityClassLister
}

// NewPriority makes the plug-in.
func NewPriority(classes schedulinglisters.PriorityClassLister) *Priority {
	return &Priority{admission.NewHandler(admission.Create, admission.Update), classes}
}

// Admit implements admission.MutationInterface.
func (p *Priority) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != podResource || a.GetSubresource() != "" {
		return nil
	}
	pod, ok := a.GetObject().(*v1.Pod)
	if !ok {
		return nil
	}
	if a.GetOperation() == admission.Update {
		if old, ok := a.GetOldObject().(*v1.Pod); ok && pod.Spec.Priority == nil {
			pod.Spec.Priority, pod.Spec.PreemptionPolicy = old.Spec.Priority, old.Spec.PreemptionPolicy
		}
		return nil
	}
	name, value, policy := pod.Spec.PriorityClassName, int32(0), ptr.To(v1.PreemptLowerPriority)
	if name == "" {
		class, err := p.global()
		if err != nil {
			return err
		}
		if class != nil {
			name, value = class.Name, class.Value
			if class.PreemptionPolicy != nil {
				policy = class.PreemptionPolicy
			}
		}
	} else {
		class, err := p.Classes.Get(name)
		if apierrors.IsNotFound(err) {
			return admission.NewForbidden(a, fmt.Errorf("no PriorityClass with name %v was found", name))
		}
		if err != nil {
			return err
		}
		value = class.Value
		if class.PreemptionPolicy != nil {
			policy = class.PreemptionPolicy
		}
	}
	if pod.Spec.Priority != nil && *pod.Spec.Priority != value {
		return admission.NewForbidden(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *pod.Spec.Priority, value))
	}
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy != *policy {
		return admission.NewForbidden(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *pod.Spec.PreemptionPolicy, *policy))
	}
	pod.Spec.PriorityClassName, pod.Spec.Priority, pod.Spec.PreemptionPolicy = name, &value, policy
	return nil
}

// global is the default class of the lowest value.
func (p *Priority) global() (*schedulingv1.PriorityClass, error) {
	all, err := p.Classes.List(everything)
	if err != nil {
		return nil, err
	}
	var out *schedulingv1.PriorityClass
	for _, c := range all {
		if c.GlobalDefault && (out == nil || c.Value < out.Value) {
			out = c
		}
	}
	return out, nil
}

// LimitRanger fills in and enforces the limits of a namespace.
type LimitRanger struct {
	*admission.Handler
	Ranges corelisters.LimitRangeLister
}

// NewLimitRanger makes the plug-in.
func NewLimitRanger(l corelisters.LimitRangeLister) *LimitRanger {
	return &LimitRanger{admission.NewHandler(admission.Create, admission.Update), l}
}
