package row

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
)

// TestDeclared has what markers declare said beside a kind's own rules, and once only.
func TestDeclared(t *testing.T) {
	at := field.NewPath("spec", "parentRef")
	own := func(a *networkingv1.IPAddress) field.ErrorList {
		return field.ErrorList{field.Required(at, "own text"), field.Invalid(at, nil, "own reason"), field.Required(field.NewPath("spec"), "")}
	}
	r := New[networkingv1.IPAddressList](networkingv1.SchemeGroupVersion, api.Resource{}, Kind[*networkingv1.IPAddress]{Validate: own})
	ref := &networkingv1.IPAddress{Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Name: "a"}}}
	want := []string{"spec.parentRef: Invalid value: null: own reason", "spec: Required value", "spec.parentRef: Required value"}
	expect(t, r.Validate(&networkingv1.IPAddress{}), want...)
	expect(t, r.ValidateUpdate(&networkingv1.IPAddress{}, &networkingv1.IPAddress{}), "spec.parentRef: Required value: own text", want[0], want[1])
	expect(t, r.ValidateUpdate(&networkingv1.IPAddress{}, ref), append(want, "spec.parentRef: Invalid value: null: field is immutable")...)

	attachments := New[storagev1.VolumeAttachmentList](storagev1.SchemeGroupVersion, api.Resource{}, Kind[*storagev1.VolumeAttachment]{
		Status:  func(a *storagev1.VolumeAttachment) any { return &a.Status },
		Updates: map[string]Update[*storagev1.VolumeAttachment]{"part": {Prepare: func(_, _ *storagev1.VolumeAttachment) {}}},
	})
	is, was := &storagev1.VolumeAttachment{}, &storagev1.VolumeAttachment{}
	is.Spec.Attacher, was.Spec.Attacher = "b.example.com", "a.example.com"
	for name, s := range map[string]*api.UpdateStrategy{"": &attachments.UpdateStrategy, "status": attachments.Status, "part": attachments.Updates["part"]} {
		t.Run(name, func(t *testing.T) {
			expect(t, s.ValidateUpdate(is, was), "spec: Invalid value: null: field is immutable")
		})
	}

	plain := New[corev1.ConfigMapList](corev1.SchemeGroupVersion, api.Resource{}, Kind[*corev1.ConfigMap]{})
	if plain.Validate != nil || plain.ValidateUpdate != nil {
		t.Error("a kind without rules or markers is validated")
	}
}

func expect(t *testing.T, errs field.ErrorList, want ...string) {
	t.Helper()
	seen := map[string]int{}
	for _, e := range errs {
		seen[e.Error()]++
	}
	for _, w := range want {
		if seen[w] != 1 {
			t.Errorf("%q is said %d times, want once", w, seen[w])
		}
		delete(seen, w)
	}
	if len(seen) > 0 {
		t.Errorf("too much is said: %v", seen)
	}
}
