package conformance

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

func (t *T) watchMaps(version, selector string) watch.Interface {
	t.Helper()
	return got[watch.Interface](t)(t.Client.CoreV1().ConfigMaps(t.NS).Watch(t.Context(), metav1.ListOptions{ResourceVersion: version, LabelSelector: selector}))
}

func data(key, value string) func(runtime.Object) bool {
	return func(o runtime.Object) bool { return o.(*v1.ConfigMap).Data[key] == value }
}

// silent checks that no event comes for a moment.
func (t *T) silent(w watch.Interface) {
	t.Helper()
	select {
	case e := <-w.ResultChan():
		t.Errorf("an event that should not come: %v", e)
	case <-time.After(300 * time.Millisecond):
	}
}

var _ = It("[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps", func(t *T) {
	maps := t.Client.CoreV1().ConfigMaps(t.NS)
	a, b, both := t.watchMaps("", "watch=a"), t.watchMaps("", "watch=b"), t.watchMaps("", "watch in (a,b)")
	cm := configMap("a", nil)
	cm.Labels = map[string]string{"watch": "a"}
	cm = got[*v1.ConfigMap](t)(maps.Create(t.Context(), cm, create))
	for _, w := range []watch.Interface{a, both} {
		t.event(w, watch.Added, nil)
	}
	cm.Data = map[string]string{"mutation": "1"}
	cm = got[*v1.ConfigMap](t)(maps.Update(t.Context(), cm, update))
	for _, w := range []watch.Interface{a, both} {
		t.event(w, watch.Modified, data("mutation", "1"))
	}
	t.silent(b)
	t.must(maps.Delete(t.Context(), cm.Name, remove))
	for _, w := range []watch.Interface{a, both} {
		t.event(w, watch.Deleted, data("mutation", "1"))
	}
	cm = configMap("b", nil)
	cm.Labels = map[string]string{"watch": "b"}
	got[*v1.ConfigMap](t)(maps.Create(t.Context(), cm, create))
	for _, w := range []watch.Interface{b, both} {
		t.event(w, watch.Added, nil)
	}
	t.silent(a)
})

var _ = It("[sig-api-machinery] Watchers should be able to start watching from a specific resource version", func(t *T) {
	maps := t.Client.CoreV1().ConfigMaps(t.NS)
	cm := got[*v1.ConfigMap](t)(maps.Create(t.Context(), configMap("a", nil), create))
	cm.Data = map[string]string{"mutation": "1"}
	first := got[*v1.ConfigMap](t)(maps.Update(t.Context(), cm, update))
	cm = first.DeepCopy()
	cm.Data["mutation"] = "2"
	got[*v1.ConfigMap](t)(maps.Update(t.Context(), cm, update))
	t.must(maps.Delete(t.Context(), "a", remove))
	w := t.watchMaps(first.ResourceVersion, "")
	for _, want := range []watch.EventType{watch.Modified, watch.Deleted} {
		for e := range w.ResultChan() {
			if e.Object.(*v1.ConfigMap).Name != "a" {
				continue // the namespace's kube-root-ca.crt
			}
			if e.Type != want || e.Object.(*v1.ConfigMap).Data["mutation"] != "2" {
				t.Fatalf("%s %v, want %s", e.Type, e.Object, want)
			}
			break
		}
	}
})

var _ = It("[sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch", func(t *T) {
	maps := t.Client.CoreV1().ConfigMaps(t.NS)
	w := t.watchMaps("", "watch=yes")
	cm := configMap("a", nil)
	cm.Labels = map[string]string{"watch": "yes"}
	cm = got[*v1.ConfigMap](t)(maps.Create(t.Context(), cm, create))
	t.event(w, watch.Added, nil)
	cm.Data = map[string]string{"mutation": "1"}
	cm = got[*v1.ConfigMap](t)(maps.Update(t.Context(), cm, update))
	last := t.event(w, watch.Modified, data("mutation", "1")).(*v1.ConfigMap).ResourceVersion
	w.Stop()
	cm.Data["mutation"] = "2"
	got[*v1.ConfigMap](t)(maps.Update(t.Context(), cm, update))
	t.must(maps.Delete(t.Context(), "a", remove))
	w = t.watchMaps(last, "watch=yes")
	t.event(w, watch.Modified, data("mutation", "2"))
	t.event(w, watch.Deleted, data("mutation", "2"))
})

var _ = It("[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector", func(t *T) {
	maps := t.Client.CoreV1().ConfigMaps(t.NS)
	w := t.watchMaps("", "watch=yes")
	label := func(value, mutation string) {
		cm := got[*v1.ConfigMap](t)(maps.Get(t.Context(), "a", get))
		cm.Labels, cm.Data = map[string]string{"watch": value}, map[string]string{"mutation": mutation}
		got[*v1.ConfigMap](t)(maps.Update(t.Context(), cm, update))
	}
	cm := configMap("a", nil)
	cm.Labels = map[string]string{"watch": "yes"}
	got[*v1.ConfigMap](t)(maps.Create(t.Context(), cm, create))
	t.event(w, watch.Added, nil)
	label("yes", "1")
	t.event(w, watch.Modified, data("mutation", "1"))
	label("no", "2")
	t.event(w, watch.Deleted, nil)
	label("no", "3")
	t.silent(w)
	label("yes", "4")
	t.event(w, watch.Added, data("mutation", "4"))
	label("yes", "5")
	t.event(w, watch.Modified, data("mutation", "5"))
	t.must(maps.Delete(t.Context(), "a", remove))
	t.event(w, watch.Deleted, data("mutation", "5"))
})

var _ = It("[sig-api-machinery] Watchers should receive events on concurrent watches in same order", func(t *T) {
	maps := t.Client.CoreV1().ConfigMaps(t.NS)
	const n = 50
	start := got[*v1.ConfigMapList](t)(maps.List(t.Context(), all)).ResourceVersion
	versions := []string{start}
	for i := range n {
		cm := got[*v1.ConfigMap](t)(maps.Create(t.Context(), configMap(fmt.Sprintf("cm-%d", i), nil), create))
		versions = append(versions, cm.ResourceVersion)
		if i%3 == 0 {
			t.must(maps.Delete(t.Context(), cm.Name, remove))
		}
	}
	var whole []string
	for i := 0; i < n; i += 7 {
		w := t.watchMaps(versions[i], "")
		var seen []string
		for e := range w.ResultChan() {
			o := e.Object.(*v1.ConfigMap)
			if strings.HasPrefix(o.Name, "cm-") {
				seen = append(seen, string(e.Type)+" "+o.Name+" "+o.ResourceVersion)
			}
			if o.Name == fmt.Sprintf("cm-%d", n-1) {
				break
			}
		}
		w.Stop()
		if whole == nil {
			whole = seen
		} else if !slices.Equal(seen, whole[len(whole)-len(seen):]) {
			t.Errorf("a watch from %s saw\n%v\nanother saw\n%v", versions[i], seen, whole)
		}
	}
})

var _ = It("[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls", func(t *T) {
	t.chunks(false)
})

var _ = It("[sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent", func(t *T) {
	t.chunks(true)
})

// chunks lists in chunks. With stale it uses a token of an old version, for
// which the server may answer with the next chunk, or with 410 and a token to go
// on with.
func (t *T) chunks(stale bool) {
	maps := t.Client.CoreV1().ConfigMaps(t.NS)
	const n = 40
	for i := range n {
		got[*v1.ConfigMap](t)(maps.Create(t.Context(), configMap(fmt.Sprintf("c-%03d", i), nil), create))
	}
	var names []string
	version, next := "", ""
	for {
		l, err := maps.List(t.Context(), metav1.ListOptions{Limit: 7, Continue: next})
		if status, ok := err.(apierrors.APIStatus); ok && status.Status().Code == http.StatusGone { //nolint:errorlint // client-go does not wrap it
			next = status.Status().ListMeta.Continue
			if next == "" {
				t.Fatalf("a token of a forgotten version, and none to go on with: %v", err)
			}
			version = ""
			continue
		}
		t.must(err)
		if version == "" {
			version = l.ResourceVersion
		} else if l.ResourceVersion != version {
			t.Errorf("a piece is of version %s, the first of %s", l.ResourceVersion, version)
		}
		if len(l.Items) > 7 {
			t.Errorf("a piece of %d", len(l.Items))
		}
		for i := range l.Items {
			names = append(names, l.Items[i].Name)
		}
		if l.RemainingItemCount != nil && l.Continue == "" {
			t.Error("items remain after the last piece")
		}
		if next = l.Continue; next == "" {
			break
		}
		if stale {
			// Later chunks do not show changes that are made meanwhile.
			got[*v1.ConfigMap](t)(maps.Create(t.Context(), configMap("d-"+fmt.Sprint(len(names)), nil), create))
		}
	}
	names = slices.DeleteFunc(names, func(s string) bool { return !strings.HasPrefix(s, "c-") })
	if len(names) != n || !slices.IsSorted(names) {
		t.Errorf("%d names: %v", len(names), names)
	}
	whole := got[*v1.ConfigMapList](t)(maps.List(t.Context(), all))
	if whole.Continue != "" || len(whole.Items) < n {
		t.Errorf("the whole list has %d, continue %q", len(whole.Items), whole.Continue)
	}
}
