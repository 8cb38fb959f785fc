package shape_test

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"keelson.dev/keelson/internal/apiserver/shape"
)

// TestAppend checks which changes of a pod have one shape.
func TestAppend(t *testing.T) {
	empty := &v1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	typedPod, err := applyconfigurations.NewTypeConverter(scheme.Scheme).ObjectToTyped(empty, typed.AllowDuplicates)
	if err != nil {
		t.Fatal(err)
	}
	kind := shape.NewKind(reflect.TypeFor[v1.Pod](), typedPod.Schema(), typedPod.TypeRef(), []string{"metadata", "managedFields"})
	pod := func(f func(*v1.Pod)) *v1.Pod {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "1", "b": "2"}, Finalizers: []string{"x/y"},
			OwnerReferences: []metav1.OwnerReference{{UID: "u1", Name: "o"}}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}},
			Spec: v1.PodSpec{NodeSelector: map[string]string{"n": "1"}, Containers: []v1.Container{{Name: "c", Image: "i", Args: []string{"a", "b"},
				Ports: []v1.ContainerPort{{ContainerPort: 80, Protocol: "TCP"}}}}},
			Status: v1.PodStatus{StartTime: &metav1.Time{}}}
		f(p)
		return p
	}
	same := func(*v1.Pod) {}
	for _, c := range []struct {
		name                string
		a, b, otherA, other func(*v1.Pod)
		equal               bool
	}{
		{"other values of what is the same before and after", same, same, func(p *v1.Pod) { p.Name, p.Spec.Containers[0].Image = "q", "j" }, func(p *v1.Pod) { p.Name, p.Spec.Containers[0].Image = "q", "j" }, true},
		{"a new value, and another", same, func(p *v1.Pod) { p.Spec.NodeName = "n1" }, same, func(p *v1.Pod) { p.Spec.NodeName = "n2" }, true},
		{"a changed value, and a new one", func(p *v1.Pod) { p.Spec.NodeName = "n0" }, func(p *v1.Pod) { p.Spec.NodeName = "n1" }, same, func(p *v1.Pod) { p.Spec.NodeName = "n2" }, false},
		{"a changed value, and one that goes", func(p *v1.Pod) { p.Spec.NodeName = "n0" }, func(p *v1.Pod) { p.Spec.NodeName = "n1" }, func(p *v1.Pod) { p.Spec.NodeName = "n0" }, same, false},
		{"other managers", same, same, same, func(p *v1.Pod) { p.ManagedFields = nil }, true},
		{"two labels", same, func(p *v1.Pod) { p.Labels["a"] = "3" }, same, func(p *v1.Pod) { p.Labels["b"] = "3" }, false},
		{"no labels, and none at all", same, func(p *v1.Pod) { p.Labels = map[string]string{} }, same, func(p *v1.Pod) { p.Labels = nil }, true},
		{"an atomic list", same, func(p *v1.Pod) { p.Spec.Containers[0].Args = []string{"c"} }, same, func(p *v1.Pod) { p.Spec.Containers[0].Args[1] = "d" }, true},
		{"a set", same, func(p *v1.Pod) { p.Finalizers = []string{"x/z"} }, same, func(p *v1.Pod) { p.Finalizers = []string{"x/zz"} }, false},
		{"the order of a set", same, func(p *v1.Pod) { p.Finalizers = []string{"x/z", "x/y"} }, same, func(p *v1.Pod) { p.Finalizers = []string{"x/y", "x/z"} }, true},
		{"one of several ports", same, func(p *v1.Pod) { p.Spec.Containers[0].Ports[0].Name = "http" }, same, func(p *v1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 81 }, false},
		{"a port's default", func(p *v1.Pod) { p.Spec.Containers[0].Ports[0].Protocol = "" }, func(p *v1.Pod) { p.Spec.Containers[0].Ports[0].Protocol = "" }, same, same, true},
		{"a name in a list, to be filled in", same, func(p *v1.Pod) { p.OwnerReferences[0].UID = "u2" }, same, func(p *v1.Pod) { p.OwnerReferences[0].UID = "u3" }, true},
		{"a name in a list that JSON escapes", same, func(p *v1.Pod) { p.OwnerReferences[0].UID = `"` }, same, func(p *v1.Pod) { p.OwnerReferences[0].UID = `'` }, false},
		{"items of a list", same, func(p *v1.Pod) { p.Spec.Containers[0].Name = "d" }, same, func(p *v1.Pod) { p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: "d"}) }, false},
		{"a time", same, func(p *v1.Pod) { p.Status.StartTime = &metav1.Time{Time: metav1.Now().Time} }, same, same, false},
	} {
		of := func(a, b *v1.Pod) (ch shape.Change) {
			if !kind.Append(&ch, reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem(), false) {
				t.Errorf("%s: there is no shape", c.name)
			}
			return ch
		}
		x, y := of(pod(c.a), pod(c.b)), of(pod(c.otherA), pod(c.other))
		if bytes.Equal(x.Shape, y.Shape) != c.equal {
			t.Errorf("%s: equal is %v, want %v:\n%q\n%q", c.name, !c.equal, c.equal, x.Shape, y.Shape)
		}
	}
	var ch shape.Change
	a, b := pod(same), pod(func(p *v1.Pod) { p.OwnerReferences[0].UID = "u2" })
	kind.Append(&ch, reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem(), false)
	if want := []shape.Name{{Key: "uid", Value: "u1"}, {Key: "uid", Value: "u2"}}; !slices.Equal(ch.Names, want) {
		t.Errorf("names %v, want %v", ch.Names, want)
	}
	twice := pod(func(p *v1.Pod) { p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0]) })
	if kind.Append(&ch, reflect.ValueOf(a).Elem(), reflect.ValueOf(twice).Elem(), false) {
		t.Error("two items of one name have a shape")
	}
}
