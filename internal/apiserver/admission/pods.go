package admission

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
	"k8s.io/utils/ptr"
)

var podResource = v1.Resource("pods")

// tolerationSeconds lets pods stay for a while, by default five minutes, on a node
// that is not ready or not reachable.
type tolerationSeconds struct{ stay []v1.Toleration }

func newTolerationSeconds(e *Environment) *plain {
	d := tolerationSeconds{}
	for _, t := range []struct {
		key     string
		seconds *int64
	}{{v1.TaintNodeNotReady, e.Selection.NotReadySeconds}, {v1.TaintNodeUnreachable, e.Selection.UnreachableSeconds}} {
		d.stay = append(d.stay, v1.Toleration{Key: t.key, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute, TolerationSeconds: ptr.To(ptr.Deref(t.seconds, 300))})
	}
	return admits(onObject(d.admit), admission.Create, admission.Update)
}

func (d tolerationSeconds) admit(_ context.Context, _ admission.Attributes, pod *v1.Pod) error {
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

// priority gives pods the priority of their class.
type priority struct {
	*Environment
	classes schedulinglisters.PriorityClassLister
}

func newPriority(e *Environment) *plain {
	p := priority{e, e.Informers.Scheduling().V1().PriorityClasses().Lister()}
	return admits(onObject(p.admit), admission.Create, admission.Update)
}

func (p priority) admit(ctx context.Context, a admission.Attributes, pod *v1.Pod) error {
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
		class, err := p.classes.Get(name)
		class, err = found(ctx, p.Environment, "scheduling.k8s.io", "priorityclasses", name, class, err)
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

// global returns the default class of the lowest value.
func (p priority) global() (*schedulingv1.PriorityClass, error) {
	all, err := p.classes.List(everything)
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
