package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/statuserror"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
)

// Object is an object that differs between two moments, or has been different in
// between. Changes answers with one to a line, as JSON.
type Object struct {
	Group     string `json:"group,omitempty"`
	Resource  string `json:"resource"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// UID is the object's; of several by that name one after the other the last one's.
	UID types.UID `json:"uid,omitempty"`
	// Before and After are the object at both moments, without managed fields and
	// resourceVersion; absent where it did not exist. The data of Secrets is masked: a value that changed reads
	// "*** (before)" and "*** (after)".
	Before *unstructured.Unstructured `json:"before,omitempty"`
	After  *unstructured.Unstructured `json:"after,omitempty"`
	// Changes are in order of time.
	Changes []Change `json:"changes"`
}

// Change is a write.
type Change struct {
	Revision int64     `json:"revision"`
	Time     time.Time `json:"time"`
	Verb     string    `json:"verb"` // created, updated or deleted
	// Ends reports whether the change was made to delete the object, be it that it has
	// to wait for a grace period or for finalizers.
	Ends bool `json:"ends,omitempty"`
	trace.Note
}

// Changes serves the changes after the moment ?from= up to ?to= (default: now), of
// objects that its user may get, as far back as he has been allowed to; in ?namespace=, of the type ?resource= and ?group=, with the name ?name=;
// empty is any. With ?brief=true it leaves out Before and After. Leases and Events are left out unless they are asked for.
type Changes struct {
	Store     store.Store
	Catalogue *catalogue.Catalogue
	// Authorizer decides which objects are shown, and from when on; nil shows all.
	Authorizer authorizer.Authorizer
	// Moment returns the revision of a moment.
	Moment func(string) (int64, error)
}

// ServeHTTP implements http.Handler.
func (h *Changes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	objects, err := h.changes(r)
	if err != nil {
		statuserror.Write(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	for _, o := range objects {
		if err := enc.Encode(o); err != nil {
			return // the client has gone
		}
	}
}

// changed is an object on the way to an Object.
type changed struct {
	row           *api.Resource
	before, after *store.Entry
	readable      bool // its user was allowed to read it already
	ending        bool // what was seen last was being deleted
	Object
}

// saw notes a version of the object, after the changes that it has so far.
func (o *changed) saw(e *store.Entry) {
	if e == nil {
		return
	}
	if m, err := meta.Accessor(e.Object()); err == nil {
		o.UID = m.GetUID()
	}
	is := ended(e)
	if n := len(o.Changes); is && !o.ending && n > 0 {
		o.Changes[n-1].Ends = true
	}
	o.ending = is
}

// ended reports whether an entry's object is being deleted.
func ended(e *store.Entry) bool {
	if e == nil {
		return false
	}
	m, err := meta.Accessor(e.Object())
	return err == nil && m.GetDeletionTimestamp() != nil
}

// changes returns what a request asks for, in order of the first change.
func (h *Changes) changes(r *http.Request) ([]*Object, error) {
	past, ok := h.Store.(store.Past)
	if !ok {
		return nil, apierrors.NewBadRequest("the store keeps no history")
	}
	q := r.URL.Query()
	if q.Get("from") == "" {
		return nil, apierrors.NewBadRequest("from: give the moment after which the changes are wanted, as 10m, a time or a resourceVersion")
	}
	from, err := h.Moment(q.Get("from"))
	if err != nil {
		return nil, err
	}
	to := h.Store.Revision()
	if t := q.Get("to"); t != "" {
		if to, err = h.Moment(t); err != nil {
			return nil, err
		}
	}
	if to < from {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("to is revision %d, before from, which is %d", to, from))
	}
	objects := map[string]*changed{} // by key; nil is not wanted
	var order []*changed
	var failed error
	err = past.Changes(r.Context(), "/registry/", from, to, func(c *store.Change) bool {
		o, known := objects[c.Key]
		if !known {
			o = h.wanted(r, c.Key)
			objects[c.Key] = o
		}
		if o == nil {
			return true
		}
		if !o.readable {
			if o.readable = MayGet(r.Context(), h.Authorizer, o.row.GroupVersionResource, o.Namespace, o.Name, c.Revision-1); !o.readable {
				return true
			}
			order = append(order, o)
		}
		prev, err := c.Prev()
		if err != nil {
			failed = err
			return false
		}
		if len(o.Changes) == 0 {
			o.before = prev
		}
		o.saw(prev)
		verb := "updated"
		switch created := len(o.Changes) == 0 && o.before == nil || len(o.Changes) > 0 && o.Changes[len(o.Changes)-1].Verb == "deleted"; {
		case c.Deleted:
			verb = "deleted"
		case created:
			verb = "created"
		}
		o.ending = o.ending && verb != "deleted"
		note := trace.ParseNote(c.Note)
		note.Told = nil // the trace has it
		o.Changes = append(o.Changes, Change{Ends: verb == "deleted" && !ended(prev), Revision: c.Revision, Time: c.Time, Verb: verb, Note: note})
		return true
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	if len(order) > 0 {
		if err := h.at(r.Context(), to, objects); err != nil {
			return nil, err
		}
	}
	var out []*Object
	for _, o := range order {
		o.saw(o.after)
		if q.Get("brief") == "true" {
			out = append(out, &o.Object)
			continue
		}
		if err := o.compare(); err != nil {
			return nil, err
		}
		out = append(out, &o.Object)
	}
	return out, nil
}

// at finds the objects as they are at the revision to, whatever is written meanwhile.
func (h *Changes) at(ctx context.Context, to int64, objects map[string]*changed) error {
	wanted := func(e *store.Entry) bool { return objects[e.Key] != nil }
	res, err := h.Store.List(ctx, "/registry/", store.ListOptions{Revision: to, Past: true, Match: wanted})
	if err != nil {
		return err
	}
	for _, e := range res.Entries {
		objects[e.Key].after = e
	}
	return nil
}

// wanted returns the object at a key, if a request asks for it and its user may read it.
func (h *Changes) wanted(r *http.Request, key string) *changed {
	row, ns, name := h.Catalogue.ForKey(key)
	if row == nil || h.Catalogue.Hides(row.GroupVersionResource) {
		return nil
	}
	q := r.URL.Query()
	for given, is := range map[string]string{"namespace": ns, "name": name, "group": row.Group, "resource": row.Resource} {
		if want := q.Get(given); want != "" && want != is {
			return nil
		}
	}
	if q.Get("resource") == "" && slices.Contains([]string{"leases", "events"}, row.Resource) {
		return nil
	}
	if !MayGet(r.Context(), h.Authorizer, row.GroupVersionResource, ns, name, 0) {
		return nil
	}
	return &changed{row: row, Object: Object{Group: row.Group, Resource: row.Resource, Namespace: ns, Name: name}}
}

// compare fills in the object at both moments.
func (o *changed) compare() (err error) {
	if o.Before, err = o.shown(o.before); err != nil {
		return err
	}
	if o.After, err = o.shown(o.after); err != nil {
		return err
	}
	if o.Group == "" && o.Resource == "secrets" {
		mask(o.Before, o.After)
	}
	return nil
}

// shown returns an entry's object without what only machines read.
func (o *changed) shown(e *store.Entry) (*unstructured.Unstructured, error) {
	if e == nil {
		return nil, nil
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(e.Object())
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: m}
	if _, ok := e.Object().(*unstructured.Unstructured); !ok {
		u.SetGroupVersionKind(o.row.GVK())
	} else {
		u = u.DeepCopy()
	}
	u.SetManagedFields(nil)
	u.SetResourceVersion("") // each change has its revision
	unstructured.RemoveNestedField(u.Object, "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
	return u, nil
}

// mask hides the data of a Secret, but shows which values changed.
func mask(before, after *unstructured.Unstructured) {
	data := func(u *unstructured.Unstructured) map[string]any {
		if u == nil {
			return nil
		}
		m, _, _ := unstructured.NestedMap(u.Object, "data")
		return m
	}
	old, next := data(before), data(after)
	hidden := func(u *unstructured.Unstructured, own, other map[string]any, mark string) {
		if u == nil || own == nil {
			return
		}
		m := map[string]any{}
		for k, v := range own {
			m[k] = "***"
			if w, ok := other[k]; ok && w != v {
				m[k] = "*** (" + mark + ")"
			}
		}
		u.Object["data"] = m
	}
	hidden(before, old, next, "before")
	hidden(after, next, old, "after")
}
