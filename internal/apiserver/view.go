package apiserver

import (
	"context"
	"net/http"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson.dev/keelson/internal/store"
)

// ViewPrefix begins the paths at which the objects of a resource are listed and watched in
// a reduced form, for users who are not to read them whole: /views/network/api/v1/pods. A user
// needs the right to the subresource of the view's name there, pods/network, and no other.
const ViewPrefix = "/views/"

// View reduces the objects of a resource.
type View struct {
	// Reduce returns the reduced form of an object, which it does not change. It has the
	// object's name, namespace, UID and resourceVersion.
	Reduce func(obj runtime.Object) runtime.Object
	recent [512]atomic.Pointer[reduced]
}

// reduced is an entry and its reduced form: all watches send the same changes, whose
// encoded form they share.
type reduced struct{ of, is *store.Entry }

// entry returns the reduced form of e.
func (v *View) entry(e *store.Entry) *store.Entry {
	slot := &v.recent[uint64(e.ModRevision)%uint64(len(v.recent))]
	if r := slot.Load(); r != nil && r.of == e {
		return r.is
	}
	is := store.NewEntry(e.Key, e.CreateRevision, e.ModRevision, store.Value{Object: v.Reduce(e.Object()), Form: e.Form})
	slot.Store(&reduced{e, is})
	return is
}

// entries returns the reduced forms of a list.
func (v *View) entries(all []*store.Entry) []*store.Entry {
	out := make([]*store.Entry, len(all))
	for i, e := range all {
		out[i] = v.entry(e)
	}
	return out
}

type viewKey struct{}

// inView returns req without the prefix of a view, whose name is in its context then. Another
// request is returned as it is.
func inView(req *http.Request) *http.Request {
	name, raw, ok := cutPrefix(req, ViewPrefix)
	if !ok {
		return req
	}
	return raw.WithContext(context.WithValue(raw.Context(), viewKey{}, name))
}

// inView serves a request below ViewPrefix.
func (r *call) inView(name string) error {
	i := r.info
	v := r.s.Views[name][schema.GroupResource{Group: i.APIGroup, Resource: i.Resource}]
	if !i.IsResourceRequest || v == nil || i.Subresource != name {
		return r.notFoundPath()
	}
	if r.row = r.s.Catalogue.Lookup(i.APIGroup, i.APIVersion, i.Resource); r.row == nil {
		return r.notFoundPath()
	}
	r.view = v
	switch i.Verb {
	case "list":
		return reader{r}.list()
	case "watch":
		return reader{r}.watch()
	}
	return r.methodNotSupported()
}
