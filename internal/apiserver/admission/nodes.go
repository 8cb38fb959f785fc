package admission

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// taintNewNode keeps pods off a new node until it is known to be ready.
func taintNewNode(_ context.Context, _ admission.Attributes, node *v1.Node) error {
	if !slices.ContainsFunc(node.Spec.Taints, func(t v1.Taint) bool { return t.Key == v1.TaintNodeNotReady && t.Effect == v1.TaintEffectNoSchedule }) {
		node.Spec.Taints = append(node.Spec.Taints, v1.Taint{Key: v1.TaintNodeNotReady, Effect: v1.TaintEffectNoSchedule})
	}
	return nil
}

// topologyLabels adds the zone and the region of its node to a pod's labels.
type topologyLabels struct {
	*Environment
	nodes corelisters.NodeLister
}

func newTopologyLabels(e *Environment) *plain {
	l := topologyLabels{e, e.Informers.Core().V1().Nodes().Lister()}
	return admits(either(onObject(l.pod), onObject(l.binding, "binding")), admission.Create)
}

func (l topologyLabels) pod(ctx context.Context, _ admission.Attributes, pod *v1.Pod) error {
	return l.label(ctx, &pod.Labels, pod.Spec.NodeName)
}

func (l topologyLabels) binding(ctx context.Context, _ admission.Attributes, b *v1.Binding) error {
	if b.Target.Kind != "Node" {
		return nil
	}
	return l.label(ctx, &b.Labels, b.Target.Name)
}

func (l topologyLabels) label(ctx context.Context, labels *map[string]string, node string) error {
	if node == "" {
		return nil
	}
	n, err := l.nodes.Get(node)
	n, err = found(ctx, l.Environment, "", "nodes", node, n, err)
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
