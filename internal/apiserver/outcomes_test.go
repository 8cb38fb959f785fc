package apiserver

import (
	"fmt"
	"math/rand"
	"reflect"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/randfill"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
)

var typesOnce = sync.OnceValue(func() managedfields.TypeConverter { return NewTypes(catalogue.Scheme) })

func trackedServer() *Server {
	return &Server{Config: Config{Catalogue: catalogue.New(catalogue.Builtin()), Types: typesOnce}}
}

// vocabulary are few, so that objects are alike, and have what a text in JSON escapes.
var vocabulary = []string{"a", "b", "c", "d.e", "10.0.0.1", "fd00::1", `q"`, `\`, "<&>", "é", "x y"}

// random fills in objects.
func random(seed int64) *randfill.Filler {
	f := fuzzer.FuzzerFor(fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs, func(serializer.CodecFactory) []any {
		return []any{
			func(s *string, c randfill.Continue) { *s = vocabulary[c.Intn(len(vocabulary))] },
			func(q *resource.Quantity, c randfill.Continue) { *q = resource.MustParse(fmt.Sprint(c.Intn(3))) },
			func(m *metav1.ObjectMeta, c randfill.Continue) {
				c.FillNoCustom(m)
				m.ManagedFields, m.GenerateName, m.SelfLink = nil, "", ""
			},
			func(i *intstr.IntOrString, c randfill.Continue) {
				*i = intstr.Parse(vocabulary[c.Intn(len(vocabulary))])
			},
			func(e *runtime.RawExtension, c randfill.Continue) { e.Raw = []byte(`{"a":1}`) },
		}
	}), rand.NewSource(seed), serializer.NewCodecFactory(catalogue.Scheme))
	return f.NilChance(0.6).NumElements(0, 2).MaxDepth(12)
}

// renamed changes all texts and numbers in v that are there, equal ones to equal ones, and
// no presence.
func renamed(v reflect.Value, by int) {
	if by == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			renamed(v.Elem(), by)
		}
	case reflect.Struct:
		switch v.Interface().(type) {
		case intstr.IntOrString, metav1.Time, metav1.MicroTime, resource.Quantity, metav1.TypeMeta, runtime.RawExtension:
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				renamed(v.Field(i), by)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			renamed(v.Index(i), by)
		}
	case reflect.String:
		if v.Len() > 0 {
			v.SetString(fmt.Sprint(v.String(), by))
		}
	case reflect.Int32, reflect.Int64:
		if v.Int() != 0 && v.Int() < 1<<30 && v.Int() > 0 {
			v.SetInt(v.Int() + int64(by))
		}
	}
}

// compareManagers changes old to obj as manager, as the server does and as the field
// manager alone does, and compares the managers of the two. It gives the object with its
// managers, and whether the outcome was known.
func compareManagers(t *testing.T, o *ownership, row *api.Resource, old, obj runtime.Object, manager string) (runtime.Object, bool) {
	t.Helper()
	old, obj = withGVK(row.GVK(), old), withGVK(row.GVK(), obj)
	before := old.DeepCopyObject()
	c := o.outcomes.change(old, obj, manager)
	_, known := knownManagers(o.outcomes, c)
	c.done()
	want := obj.DeepCopyObject()
	if o.reset == "" {
		want = o.UpdateNoErrors(old.DeepCopyObject(), want, manager)
	} else {
		setManagers(want, managersOf(o.UpdateNoErrors(o.written(old.DeepCopyObject()), o.written(want), manager)))
	}
	wholeSeconds(want)
	got := o.update(old, obj.DeepCopyObject(), manager)
	wholeSeconds(got)
	if !reflect.DeepEqual(old, before) {
		t.Fatal("the old object was changed")
	}
	a, b := managersOf(got), managersOf(want)
	if len(a) != len(b) {
		t.Fatalf("%v %s: %d managers, want %d:\n%v\n%v", row.GVK(), manager, len(a), len(b), a, b)
	}
	for i := range a {
		x, y := a[i], b[i]
		if !sameManager(&x, &y) || x.FieldsType != y.FieldsType || fieldsOf(&x) != fieldsOf(&y) {
			t.Fatalf("%v %s, known %v: manager\n%v, want\n%v", row.GVK(), manager, known, x, y)
		}
		if d := x.Time.Sub(y.Time.Time); d > time.Minute || d < -time.Minute {
			t.Fatalf("%v %s: the time of %s is %v, want %v", row.GVK(), manager, x.Manager, x.Time, y.Time)
		}
	}
	return got, known
}

func knownManagers(o *outcomes, c *change) ([]metav1.ManagedFieldsEntry, bool) {
	if c == nil {
		return nil, false
	}
	before := c.acc.GetManagedFields()
	known := o.known(c)
	now := c.acc.GetManagedFields()
	c.acc.SetManagedFields(before)
	return now, known
}

func managersOf(obj runtime.Object) []metav1.ManagedFieldsEntry {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil
	}
	return acc.GetManagedFields()
}

func setManagers(obj runtime.Object, m []metav1.ManagedFieldsEntry) {
	if acc, err := meta.Accessor(obj); err == nil {
		acc.SetManagedFields(m)
	}
}

// aged has the managers of obj be of other times, the later the later.
func aged(r *rand.Rand, obj runtime.Object) {
	m := managersOf(obj)
	for i := range m {
		if m[i].Time != nil {
			m[i].Time = &metav1.Time{Time: m[i].Time.Add(-time.Duration(r.Intn(3)) * time.Hour)}
		}
	}
}

// TestOutcomes compares what is known of changes of random objects of every kind, and of
// changes of other objects that differ in their texts only, with what the field manager says.
func TestOutcomes(t *testing.T) {
	s := trackedServer()
	changes, hits := 0, 0
	for _, row := range catalogue.Builtin() {
		if _, custom := row.New().(*unstructured.Unstructured); row.NotStored || custom {
			continue
		}
		subresources := []string{""}
		if row.Status != nil {
			subresources = append(subresources, "status")
		}
		for _, sub := range subresources {
			o, err := s.ownership(row, sub)
			if err != nil {
				t.Fatal(err)
			}
			main, err := s.ownership(row, "")
			if err != nil {
				t.Fatal(err)
			}
			for seed := range int64(6) {
				first, second := row.New(), row.New()
				random(seed).Fill(first)
				if seed%2 == 0 {
					random(seed + 100).Fill(second)
				} else {
					second = first.DeepCopyObject()
					random(seed + 100).Fill(reflect.ValueOf(second).Elem().Field(rand.New(rand.NewSource(seed)).Intn(reflect.TypeOf(second).Elem().NumField()-2) + 2).Addr().Interface())
				}
				setManagers(second, nil)
				for by := range 3 {
					a, b := first.DeepCopyObject(), second.DeepCopyObject()
					renamed(reflect.ValueOf(a), by)
					renamed(reflect.ValueOf(b), by)
					made, hit := compareManagers(t, main, row, row.New(), a, "maker")
					if changes++; hit {
						hits++
					}
					aged(rand.New(rand.NewSource(seed)), made)
					for i, manager := range []string{"maker", "other"} {
						next := b.DeepCopyObject()
						if i > 0 {
							setManagers(next, managersOf(made))
						}
						if _, hit := compareManagers(t, o, row, made, next, manager); hit {
							hits++
						}
						changes++
					}
				}
			}
		}
	}
	t.Logf("%d of %d outcomes were known", hits, changes)
	if hits*6 < changes {
		t.Errorf("%d of %d outcomes were known: want a sixth", hits, changes)
	}
}

// TestOutcomesOfPods checks that what pods of one ReplicaSet go through is known from the
// second one on.
func TestOutcomesOfPods(t *testing.T) {
	s := trackedServer()
	row := s.Catalogue.Lookup("", "v1", "pods")
	life := func(i int) (known int) {
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "web-", Namespace: "default", Labels: map[string]string{"app": "web"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "6d2b3b2e-8c7d-4d6a-9d6f-2f6f0d6b8a11"}}},
			Spec: v1.PodSpec{Containers: []v1.Container{{Name: "web", Image: "web", Ports: []v1.ContainerPort{{ContainerPort: 80, Protocol: "TCP"}}}}}}
		step := func(sub string, old, obj runtime.Object, manager string) runtime.Object {
			o, err := s.ownership(row, sub)
			if err != nil {
				t.Fatal(err)
			}
			got, hit := compareManagers(t, o, row, old, obj, manager)
			if hit {
				known++
			}
			return got
		}
		made := step("", row.New(), pod, "kube-controller-manager").(*v1.Pod)
		made.Name, made.UID, made.CreationTimestamp = fmt.Sprint("web-", i), "u", metav1.Now()
		made.Spec.NodeName = fmt.Sprint("node-", i)
		made.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionTrue}}
		runs := made.DeepCopy()
		ip := fmt.Sprint("10.0.0.", i)
		runs.Status = v1.PodStatus{Phase: v1.PodRunning, PodIP: ip, PodIPs: []v1.PodIP{{IP: ip}}, StartTime: &made.CreationTimestamp,
			Conditions:        append(made.Status.Conditions, v1.PodCondition{Type: v1.PodReady, Status: v1.ConditionTrue}),
			ContainerStatuses: []v1.ContainerStatus{{Name: "web", ContainerID: fmt.Sprint("sim://", i)}}}
		step("status", made, runs, "kubelet")
		return known
	}
	for i, want := range []int{0, 2, 2} {
		if got := life(i); got != want {
			t.Errorf("pod %d: %d outcomes were known, want %d", i, got, want)
		}
	}
}

// BenchmarkOutcome is what it takes to find the managers of a pod that is made like others.
func BenchmarkOutcome(b *testing.B) {
	s := trackedServer()
	row := s.Catalogue.Lookup("", "v1", "pods")
	o, err := s.ownership(row, "")
	if err != nil {
		b.Fatal(err)
	}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "web-", Labels: map[string]string{"app": "web"}}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "web", Image: "web"}}}}
	row.Default(pod)
	pod.SetGroupVersionKind(row.GVK())
	old := withGVK(row.GVK(), row.New())
	for name, update := range map[string]func(){
		"known":   func() { o.update(old, pod, "m") },
		"library": func() { o.UpdateNoErrors(old, pod, "m") },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pod.ManagedFields = nil
				update()
			}
		})
	}
}
