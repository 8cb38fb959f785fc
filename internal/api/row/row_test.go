package row

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
)

// TestNames checks that the names of a row follow from its type, irregular plurals
// included.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		row                                        *api.Resource
		resource, kind, singular, prefix, listKind string
	}{
		{New[corev1.PodList](corev1.SchemeGroupVersion, api.Resource{}, Kind[*corev1.Pod]{}), "pods", "Pod", "pod", "pods", "*v1.PodList"},
		{New[corev1.EndpointsList](corev1.SchemeGroupVersion, api.Resource{StoragePrefix: "services/endpoints"}, Kind[*corev1.Endpoints]{}), "endpoints", "Endpoints", "endpoints", "services/endpoints", "*v1.EndpointsList"},
		{New[networkingv1.NetworkPolicyList](networkingv1.SchemeGroupVersion, api.Resource{}, Kind[*networkingv1.NetworkPolicy]{}), "networkpolicies", "NetworkPolicy", "networkpolicy", "networkpolicies", "*v1.NetworkPolicyList"},
		{NewComputed(corev1.SchemeGroupVersion, api.Resource{}, Kind[*corev1.Binding]{}), "bindings", "Binding", "binding", "", ""},
	} {
		r := c.row
		if r.Resource != c.resource || r.Kind != c.kind || r.Singular != c.singular || r.StoragePrefix != c.prefix {
			t.Errorf("%s %s %s %q, want %s %s %s %q", r.Resource, r.Kind, r.Singular, r.StoragePrefix, c.resource, c.kind, c.singular, c.prefix)
		}
		if obj := r.New(); obj.GetObjectKind() == nil {
			t.Errorf("%s: no object", r.Kind)
		}
		if (r.NewList != nil) != (c.listKind != "") || r.NotStored != (c.listKind == "") {
			t.Errorf("%s: lists %v, not stored %v", r.Kind, r.NewList != nil, r.NotStored)
		}
	}
}

// TestGeneration has changes of the spec counted, and updates keep to their part.
func TestGeneration(t *testing.T) {
	r := New[corev1.PodList](corev1.SchemeGroupVersion, api.Resource{}, Kind[*corev1.Pod]{
		Generation: true,
		Spec:       func(p *corev1.Pod) any { return &p.Spec },
		Status:     func(p *corev1.Pod) any { return &p.Status },
		Updates: map[string]Update[*corev1.Pod]{"place": {
			Prepare:  func(p, old *corev1.Pod) { p.Status = old.Status },
			Validate: func(p, _ *corev1.Pod) field.ErrorList { return field.ErrorList{field.Required(nil, p.Name)} },
		}},
	})
	old := &corev1.Pod{}
	old.Status.Phase = corev1.PodRunning
	r.PrepareForCreate(old)
	if old.Generation != 1 || old.Status.Phase != "" {
		t.Errorf("a new object has generation %d and status %+v", old.Generation, old.Status)
	}
	old.Status.Phase = corev1.PodRunning
	for _, c := range []struct {
		strategy   *api.UpdateStrategy
		node       string
		wantNode   string
		wantPhase  corev1.PodPhase
		generation int64
	}{
		{&r.UpdateStrategy, "", "", corev1.PodRunning, 1},
		{&r.UpdateStrategy, "n", "n", corev1.PodRunning, 2},
		{r.Status, "n", "", corev1.PodFailed, 1},
		{r.Updates["place"], "n", "n", corev1.PodRunning, 1},
	} {
		p := old.DeepCopy()
		p.Spec.NodeName, p.Status.Phase = c.node, corev1.PodFailed
		c.strategy.PrepareForUpdate(p, old)
		if p.Spec.NodeName != c.wantNode || p.Status.Phase != c.wantPhase || p.Generation != c.generation {
			t.Errorf("%q %q %d, want %+v", p.Spec.NodeName, p.Status.Phase, p.Generation, c)
		}
	}
	if errs := r.Updates["place"].ValidateUpdate(old, old); len(errs) != 1 {
		t.Errorf("errors %v", errs)
	}
}
