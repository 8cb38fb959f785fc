package validation

import (
	"context"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// call runs the rules of T; without any it fails.
func call[T any](t *testing.T, op operation.Type, obj, old T) (out []string) {
	t.Helper()
	f := For[T]()
	if f == nil {
		t.Fatalf("%T has no rules", obj)
	}
	for _, e := range f(context.Background(), operation.Operation{Type: op}, nil, obj, old) {
		if e.Type != field.ErrorTypeInternal && !e.IsAlpha() {
			out = append(out, e.Error())
		}
	}
	return out
}

func TestFor(t *testing.T) {
	if For[*corev1.ConfigMap]() != nil || For[*corev1.PodList]() != nil {
		t.Error("kinds without markers have rules")
	}
	replicas := int32(-1)
	class := func(provisioner string) *storagev1.StorageClass {
		return &storagev1.StorageClass{Provisioner: provisioner}
	}
	for _, c := range []struct {
		name      string
		got, want []string
	}{
		{"a number", call(t, operation.Create, &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Replicas: &replicas}}, nil),
			[]string{"spec.replicas: Invalid value: -1: must be greater than or equal to 0"}},
		{"no template", call(t, operation.Create, &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Replicas: new(int32(1))}}, nil), nil},
		{"one that does not change", call(t, operation.Update, &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Replicas: &replicas}},
			&corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Replicas: &replicas}}), nil},
		{"an item of a list", call(t, operation.Create, &discoveryv1.EndpointSlice{AddressType: "IPv4", Endpoints: []discoveryv1.Endpoint{{}}}, nil),
			[]string{"endpoints[0].addresses: Required value"}},
		{"what may not change", call(t, operation.Update, class("b"), class("a")), []string{"provisioner: Invalid value: null: field is immutable"}},
		{"a part of another group's", call(t, operation.Create, &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			EvictionResponders: []corev1.EvictionResponder{{Name: "a.k8s.io/b", Priority: new(int32(10000))}}}}}}, nil),
			[]string{`spec.template.spec.evictionResponders[0].name: Invalid value: "a.k8s.io/b": domain names *.k8s.io, *.kubernetes.io are reserved`}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, c.got, c.want)
		}
	}
}
