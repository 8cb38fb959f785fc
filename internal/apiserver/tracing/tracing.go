// Package tracing records the writes of an API server for the trace, and serves what
// it has recorded. It may import packages apiserver, api/catalogue, store and trace.
package tracing

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
)

// Recorder keeps what is written to Store in Trace.
type Recorder struct {
	Trace     *trace.Recorder
	Store     store.Store
	Catalogue *catalogue.Catalogue
}

// Path is where an API server has the Recorder as a handler.
const Path = "/debug/keelson/trace"

// Record keeps a committed write for the trace. Leases and Events say nothing
// about the way of an object.
func (r *Recorder) Record(ctx context.Context, w apiserver.Write) {
	switch w.Resource.Resource {
	case "leases", "events":
		return
	}
	acc, err := meta.Accessor(w.Object)
	if err != nil {
		return
	}
	s := trace.Step{Time: w.Time, Verb: w.Verb, Subresource: w.Subresource, Resource: w.Resource.GroupVersionResource.GroupResource().String(),
		Namespace: acc.GetNamespace(), Name: acc.GetName(), UID: acc.GetUID(), ResourceVersion: acc.GetResourceVersion(), What: what(w)}
	if u, ok := request.UserFrom(ctx); ok {
		s.Actor = strings.TrimPrefix(u.GetName(), "system:serviceaccount:kube-system:")
	}
	if cause, ok := trace.CauseFrom(ctx); ok {
		s.CauseUID, s.CauseVersion = cause.UID, cause.ResourceVersion
	} else if ref := ownerOf(acc.GetOwnerReferences()); ref != "" && w.Verb == "create" {
		s.CauseUID = ref
	}
	r.Trace.Add(s)
}

// Note returns trace.Note of a request, for the history of the store.
func Note(req *http.Request) string {
	ctx := req.Context()
	n := trace.Note{Client: req.UserAgent()}
	if u, ok := request.UserFrom(ctx); ok {
		n.User = u.GetName()
	}
	if i, ok := request.RequestInfoFrom(ctx); ok {
		n.Subresource = i.Subresource
	}
	if c, ok := trace.CauseFrom(ctx); ok {
		n.Cause = c.String()
	}
	return n.String()
}

// what describes a write of a pod in a few words.
func what(w apiserver.Write) string {
	p, ok := w.Object.(*v1.Pod)
	if !ok {
		return ""
	}
	old, _ := w.Old.(*v1.Pod)
	if w.Subresource == "binding" {
		return "bound to " + p.Spec.NodeName
	}
	var out []string
	if old != nil && old.Status.Phase != p.Status.Phase {
		out = append(out, string(p.Status.Phase))
	}
	for i := range p.Status.ContainerStatuses {
		cs := &p.Status.ContainerStatuses[i]
		var was v1.ContainerStatus
		if old != nil {
			for j := range old.Status.ContainerStatuses {
				if old.Status.ContainerStatuses[j].Name == cs.Name {
					was = old.Status.ContainerStatuses[j]
				}
			}
		}
		switch {
		case cs.Ready && !was.Ready:
			out = append(out, "container "+cs.Name+" ready")
		case cs.State.Running != nil && was.State.Running == nil:
			out = append(out, "container "+cs.Name+" running")
		case cs.State.Terminated != nil && was.State.Terminated == nil:
			out = append(out, fmt.Sprintf("container %s ended with %d", cs.Name, cs.State.Terminated.ExitCode))
		}
	}
	return strings.Join(out, ", ")
}

// ServeHTTP answers with the steps of ?resource=&group=&namespace=&name=.
func (r *Recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	for _, row := range r.Catalogue.All() {
		if row.Resource != q.Get("resource") || row.Group != q.Get("group") || row.NotStored {
			continue
		}
		e, err := r.Store.Get(req.Context(), row.Key(q.Get("namespace"), q.Get("name")))
		if err != nil || e == nil {
			http.Error(w, fmt.Sprintf("%s %q not found", row.GroupVersionResource.GroupResource(), q.Get("name")), http.StatusNotFound)
			return
		}
		acc, err := meta.Accessor(e.Object())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"uid": acc.GetUID(), "steps": r.Trace.Way(acc.GetUID())})
		return
	}
	http.Error(w, fmt.Sprintf("no such resource: %s.%s", q.Get("resource"), q.Get("group")), http.StatusNotFound)
}

func ownerOf(refs []metav1.OwnerReference) types.UID {
	for i := range refs {
		if refs[i].Controller != nil && *refs[i].Controller {
			return refs[i].UID
		}
	}
	return ""
}
