package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/test/harness"
)

var (
	create = metav1.CreateOptions{}
	update = metav1.UpdateOptions{}
	get    = metav1.GetOptions{}
	remove = metav1.DeleteOptions{}
	all    = metav1.ListOptions{}
)

// must ends the test if there is an error.
func (t *T) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// got returns the value, and ends the test if there is an error.
func got[V any](t *T) func(V, error) V {
	return func(v V, err error) V {
		t.Helper()
		t.must(err)
		return v
	}
}

// until waits until ok reports true.
func (t *T) until(what string, ok func(context.Context) (bool, error)) {
	t.Helper()
	harness.Eventually(t, what, func() bool {
		t.Helper()
		return got[bool](t)(ok(t.Context()))
	})
}

// gone waits until the object does not exist.
func (t *T) gone(r dynamic.ResourceInterface, name string) {
	t.Helper()
	t.until("the end of "+name, func(ctx context.Context) (bool, error) {
		_, err := r.Get(ctx, name, get)
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
}

// event waits for an event of that type for whose object ok reports true.
func (t *T) event(w watch.Interface, kind watch.EventType, ok func(runtime.Object) bool) runtime.Object {
	t.Helper()
	limit := time.After(timeout)
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				t.Fatalf("the watch ended before %s", kind)
			}
			if e.Type == kind && (ok == nil || ok(e.Object)) {
				return e.Object
			}
		case <-limit:
			t.Fatalf("no %s event", kind)
		}
	}
}

// object parses an object in YAML.
func (t *T) object(format string, args ...any) *unstructured.Unstructured {
	t.Helper()
	o := map[string]any{}
	if err := yaml.Unmarshal(fmt.Appendf(nil, format, args...), &o); err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: o}
}

func patchOf(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

type dict = map[string]any

// operations describes a resource for a test of each of its verbs.
type operations struct {
	gvr schema.GroupVersionResource
	// one returns an object with that name.
	one func(name string) *unstructured.Unstructured
	// cluster reports whether the resource is cluster-scoped.
	cluster bool
	// status changes the status, if there is the subresource.
	status func(*unstructured.Unstructured)
	// statusOnly reports whether a write of the status leaves the metadata
	// alone.
	statusOnly bool
	// others are further subresources like status (approval), by name.
	others map[string]func(*unstructured.Unstructured)
}

// operate runs through a resource's verbs: discovery, create, get, list, watch,
// patch, update, subresources, delete, deletecollection.
func (t *T) operate(o operations) {
	t.Helper()
	gv := o.gvr.GroupVersion()
	resources := got[*metav1.APIResourceList](t)(t.Client.Discovery().ServerResourcesForGroupVersion(gv.String()))
	verbs := map[string]metav1.Verbs{}
	for _, r := range resources.APIResources {
		verbs[r.Name] = r.Verbs
	}
	for _, v := range []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"} {
		found := false
		for _, has := range verbs[o.gvr.Resource] {
			found = found || has == v
		}
		if !found {
			t.Errorf("%s lacks the verb %s in discovery", o.gvr.Resource, v)
		}
	}
	var r dynamic.ResourceInterface = t.Dynamic.Resource(o.gvr)
	if !o.cluster {
		r = t.Dynamic.Resource(o.gvr).Namespace(t.NS)
	}
	label := "conformance-test=" + t.NS
	mine := metav1.ListOptions{LabelSelector: label}
	make := func(name string) *unstructured.Unstructured {
		u := o.one(name + "-" + t.NS[len(t.NS)-5:])
		labels := u.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels["conformance-test"] = t.NS
		u.SetLabels(labels)
		return u
	}
	ctx := t.Context()
	first := got[*unstructured.Unstructured](t)(r.Create(ctx, make("a"), create))
	for _, n := range []string{"b", "c"} {
		got[*unstructured.Unstructured](t)(r.Create(ctx, make(n), create))
	}
	name := first.GetName()
	if _, err := r.Create(ctx, make("a"), create); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a second creation: %v", err)
	}
	if u := got[*unstructured.Unstructured](t)(r.Get(ctx, name, get)); u.GetUID() != first.GetUID() {
		t.Errorf("got %v, created %v", u.GetUID(), first.GetUID())
	}
	list := got[*unstructured.UnstructuredList](t)(r.List(ctx, mine))
	if len(list.Items) != 3 {
		t.Fatalf("%d are listed, want 3", len(list.Items))
	}
	everywhere := got[*unstructured.UnstructuredList](t)(t.Dynamic.Resource(o.gvr).List(ctx, mine))
	if len(everywhere.Items) != 3 {
		t.Errorf("%d are listed over all namespaces, want 3", len(everywhere.Items))
	}
	mine.ResourceVersion = list.GetResourceVersion()
	w := got[watch.Interface](t)(r.Watch(ctx, mine))
	defer w.Stop()
	named := func(obj runtime.Object) bool { return obj.(*unstructured.Unstructured).GetName() == name }
	patched := got[*unstructured.Unstructured](t)(r.Patch(ctx, name, types.MergePatchType, patchOf(dict{"metadata": dict{"annotations": dict{"patched": "true"}}}), metav1.PatchOptions{}))
	if patched.GetAnnotations()["patched"] != "true" {
		t.Errorf("annotations after the patch: %v", patched.GetAnnotations())
	}
	t.event(w, watch.Modified, func(obj runtime.Object) bool {
		return named(obj) && obj.(*unstructured.Unstructured).GetAnnotations()["patched"] == "true"
	})
	t.change(r, name, "", func(u *unstructured.Unstructured) {
		u.SetAnnotations(map[string]string{"patched": "true", "updated": "true"})
	})
	t.event(w, watch.Modified, func(obj runtime.Object) bool {
		return named(obj) && obj.(*unstructured.Unstructured).GetAnnotations()["updated"] == "true"
	})
	if o.status != nil {
		got[*unstructured.Unstructured](t)(r.Get(ctx, name, get, "status"))
		u := t.change(r, name, "status", o.status)
		t.event(w, watch.Modified, named)
		if u.Object["status"] == nil {
			t.Error("the status was not written")
		}
		u = got[*unstructured.Unstructured](t)(r.Patch(ctx, name, types.MergePatchType, patchOf(dict{"metadata": dict{"annotations": dict{"patchedstatus": "true"}}, "status": u.Object["status"]}), metav1.PatchOptions{}, "status"))
		if kept := u.GetAnnotations()["patchedstatus"] == "true"; kept == o.statusOnly {
			t.Errorf("annotations after the patch of the status: %v", u.GetAnnotations())
		}
	}
	for sub, f := range o.others {
		got[*unstructured.Unstructured](t)(r.Get(ctx, name, get, sub))
		t.change(r, name, sub, f)
	}
	t.must(r.Delete(ctx, name, remove))
	t.event(w, watch.Deleted, named)
	t.gone(r, name)
	t.must(r.DeleteCollection(ctx, remove, metav1.ListOptions{LabelSelector: label}))
	t.until("the end of the collection", func(ctx context.Context) (bool, error) {
		l, err := r.List(ctx, metav1.ListOptions{LabelSelector: label})
		return err == nil && len(l.Items) == 0, err
	})
}

// change updates an object, and retries on conflicts.
func (t *T) change(r dynamic.ResourceInterface, name, sub string, f func(*unstructured.Unstructured)) *unstructured.Unstructured {
	t.Helper()
	var subs []string
	if sub != "" {
		subs = []string{sub}
	}
	for {
		u := got[*unstructured.Unstructured](t)(r.Get(t.Context(), name, get))
		f(u)
		out, err := r.Update(t.Context(), u, update, subs...)
		if apierrors.IsConflict(err) {
			continue
		}
		t.must(err)
		return out
	}
}

// pod returns a pod with a web server.
func pod(name string, labels map[string]string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: v1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](0), Containers: []v1.Container{{Name: "web", Image: "keelson.local/demo"}}}}
}

func configMap(name string, data map[string]string) *v1.ConfigMap {
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
}
