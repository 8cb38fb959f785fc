package admission

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// taintNodes keeps pods off a new node until it is known to be ready.
type taintNodes struct{ *admission.Handler }

func newTaintNodes() *taintNodes { return &taintNodes{admission.NewHandler(admission.Create)} }

// Admit implements admission.MutationInterface.
func (*taintNodes) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	node, ok := a.GetObject().(*v1.Node)
	if !ok || a.GetSubresource() != "" {
		return nil
	}
	if !slices.ContainsFunc(node.Spec.Taints, func(t v1.Taint) bool { return t.Key == v1.TaintNodeNotReady && t.Effect == v1.TaintEffectNoSchedule }) {
		node.Spec.Taints = append(node.Spec.Taints, v1.Taint{Key: v1.TaintNodeNotReady, Effect: v1.TaintEffectNoSchedule})
	}
	return nil
}

// podTopologyLabels tells a pod by its labels in which zone and region its
// node is.
type podTopologyLabels struct {
	*admission.Handler
	nodes corelisters.NodeLister
}

func newPodTopologyLabels(e *Environment) *podTopologyLabels {
	return &podTopologyLabels{admission.NewHandler(admission.Create), e.Informers.Core().V1().Nodes().Lister()}
}

// Admit implements admission.MutationInterface.
func (p *podTopologyLabels) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != podResource {
		return nil
	}
	node, labels := "", (*map[string]string)(nil)
	switch o := a.GetObject().(type) {
	case *v1.Pod:
		if a.GetSubresource() == "" {
			node, labels = o.Spec.NodeName, &o.Labels
		}
	case *v1.Binding:
		if a.GetSubresource() == "binding" && o.Target.Kind == "Node" {
			node, labels = o.Target.Name, &o.Labels
		}
	}
	if node == "" {
		return nil
	}
	n, err := p.nodes.Get(node)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, key := range []string{v1.LabelTopologyZone, v1.LabelTopologyRegion} {
		value, ok := n.Labels[key]
		if _, has := (*labels)[key]; !ok || has {
			continue
		}
		if *labels == nil {
			*labels = map[string]string{}
		}
		(*labels)[key] = value
	}
	return nil
}
