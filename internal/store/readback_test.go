package store

import (
	"encoding/json"
	"reflect"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubescheme "k8s.io/client-go/kubernetes/scheme"
)

// fill puts something into every list, map and pointer of v, down to a depth, or
// leaves them empty; never nil.
func fill(v reflect.Value, depth int, empty bool) {
	if untouched[v.Type()] {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth, empty)
			}
		}
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), depth-1, empty)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		if depth > 0 && !empty {
			v.Set(reflect.MakeSlice(v.Type(), 2, 2)) // the second stays zero
			fill(v.Index(0), depth-1, v.Type().Elem().Kind() != reflect.Struct)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		if depth > 0 && !empty {
			value := reflect.New(v.Type().Elem()).Elem()
			v.SetMapIndex(reflect.New(v.Type().Key()).Elem(), value)
			filled := reflect.New(v.Type().Elem()).Elem()
			fill(filled, depth-1, filled.Kind() != reflect.Struct)
			key := reflect.New(v.Type().Key()).Elem()
			key.SetString("k")
			v.SetMapIndex(key, filled)
		}
	}
}

func asJSON(t *testing.T, obj any) string {
	t.Helper()
	b, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestReadBack compares the objects of all kinds with what is read back.
func TestReadBack(t *testing.T) {
	c := NewCodec(kubescheme.Scheme)
	n := 0
	for gvk, goType := range kubescheme.Scheme.AllKnownTypes() {
		if _, ok := reflect.New(goType).Interface().(metav1.ObjectMetaAccessor); !ok || gvk.Version == runtime.APIVersionInternal {
			continue
		}
		n++
		for depth := range 9 {
			v := reflect.New(goType)
			fill(v.Elem(), depth, depth == 0)
			obj := v.Interface().(runtime.Object)
			plain, err := c.Encode(obj)
			if err != nil {
				t.Fatalf("%s: %v", gvk, err)
			}
			want, err := c.Decode(plain)
			if err != nil {
				t.Fatalf("%s: %v", gvk, err)
			}
			ReadBack(obj)
			if is, was := asJSON(t, obj), asJSON(t, want); is != was {
				t.Errorf("%s, depth %d:\n%s\nis read back as\n%s", gvk, depth, is, was)
				break
			}
		}
	}
	if n < 50 {
		t.Errorf("%d kinds", n)
	}
	s := &v1.Secret{Data: map[string][]byte{"nil": nil, "empty": {}, "some": []byte("x")}, StringData: map[string]string{}}
	ReadBack(s)
	if s.Data["nil"] == nil || s.Data["empty"] == nil || string(s.Data["some"]) != "x" || s.StringData != nil {
		t.Errorf("%#v", s)
	}
}

func BenchmarkReadBack(b *testing.B) {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}},
		Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i", Env: []v1.EnvVar{{Name: "a"}}}}, Tolerations: make([]v1.Toleration, 2), Volumes: make([]v1.Volume, 1)}}
	b.ReportAllocs()
	for b.Loop() {
		ReadBack(p)
	}
}
