package admission

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	nodelisters "k8s.io/client-go/listers/node/v1"
)

// runtimeClass gives pods the overhead and the place that their runtime class
// asks for.
type runtimeClass struct {
	*Environment
	classes nodelisters.RuntimeClassLister
}

func newRuntimeClass(e *Environment) *plain {
	r := runtimeClass{e, e.Informers.Node().V1().RuntimeClasses().Lister()}
	return both(onObject(r.admit), onObject(r.validate), admission.Create)
}

func (r runtimeClass) class(ctx context.Context, a admission.Attributes, pod *v1.Pod) (*nodev1.RuntimeClass, error) {
	if pod.Spec.RuntimeClassName == nil {
		return nil, nil
	}
	class, err := r.classes.Get(*pod.Spec.RuntimeClassName)
	class, err = found(ctx, r.Environment, "node.k8s.io", "runtimeclasses", *pod.Spec.RuntimeClassName, class, err)
	if apierrors.IsNotFound(err) {
		return nil, admission.NewForbidden(a, fmt.Errorf("pod rejected: RuntimeClass %q not found", *pod.Spec.RuntimeClassName))
	}
	return class, err
}

func overheadOf(class *nodev1.RuntimeClass) v1.ResourceList {
	if class == nil || class.Overhead == nil {
		return nil
	}
	return class.Overhead.PodFixed
}

func (r runtimeClass) admit(ctx context.Context, a admission.Attributes, pod *v1.Pod) error {
	class, err := r.class(ctx, a, pod)
	if class == nil || err != nil {
		return err
	}
	if class.Overhead != nil {
		if pod.Spec.Overhead != nil && !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return admission.NewForbidden(a, fmt.Errorf("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
		}
		pod.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
	}
	if class.Scheduling == nil {
		return nil
	}
	for k, want := range class.Scheduling.NodeSelector {
		if got, ok := pod.Spec.NodeSelector[k]; ok && got != want {
			return admission.NewForbidden(a, fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", k, want, k, got))
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[k] = want
	}
	for i := range class.Scheduling.Tolerations {
		t := class.Scheduling.Tolerations[i]
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(o v1.Toleration) bool { return equality.Semantic.DeepEqual(o, t) }) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, *t.DeepCopy())
		}
	}
	return nil
}

func (r runtimeClass) validate(ctx context.Context, a admission.Attributes, pod *v1.Pod) error {
	class, err := r.class(ctx, a, pod)
	if err != nil {
		return err
	}
	switch want := overheadOf(class); {
	case class != nil && class.Overhead != nil:
		if !equality.Semantic.DeepEqual(want, pod.Spec.Overhead) {
			return admission.NewForbidden(a, fmt.Errorf("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
		}
	case pod.Spec.Overhead != nil:
		return admission.NewForbidden(a, fmt.Errorf("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
	}
	return nil
}
