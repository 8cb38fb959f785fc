package apiserver

import (
	"keelson.dev/keelson/internal/api"
)

// serveSubresource routes the requests below an object.
func (r *call) serveSubresource() error {
	sub := r.info.Subresource
	if r.row.NotStored {
		return r.notFoundPath()
	}
	var strategy *api.UpdateStrategy
	switch {
	case sub == "status":
		strategy = r.row.Status
	case sub == "scale" && r.row.Scale != nil:
		return r.scale()
	default:
		strategy = r.row.Updates[sub]
	}
	if strategy != nil {
		switch r.info.Verb {
		case "get":
			return r.get()
		case "update":
			return r.update(strategy)
		case "patch":
			return r.patch(strategy)
		}
		return r.methodNotSupported()
	}
	for i := range r.row.Subresources {
		if r.row.Subresources[i].Name == sub {
			if f := handlers[r.row.Group+"/"+r.row.Resource+"/"+sub]; f != nil {
				return f(r)
			}
		}
	}
	return r.notFoundPath()
}

// handlers serve the subresources that are not a view of the object.
var handlers map[string]func(*call) error

func init() {
	handlers = map[string]func(*call) error{
		"/pods/binding":          (*call).bindPod,
		"/pods/eviction":         (*call).evict,
		"/pods/log":              (*call).podLog,
		"/pods/exec":             (*call).podStream,
		"/pods/attach":           (*call).podStream,
		"/pods/portforward":      (*call).podPortForward,
		"/pods/proxy":            (*call).podProxy,
		"/services/proxy":        (*call).serviceProxy,
		"/nodes/proxy":           (*call).nodeProxy,
		"/serviceaccounts/token": (*call).token,
	}
}

// serveComputed answers for the rows that are not stored.
func (r *call) serveComputed() error {
	key := r.row.Group + "/" + r.row.Resource
	switch {
	case key == "/bindings" && r.info.Verb == "create":
		return r.bindPod()
	case key == "/componentstatuses":
		return r.componentStatuses()
	case r.info.Verb == "create":
		return r.review()
	}
	return r.methodNotSupported()
}

// as is r with answers and bodies of another row: a subresource's own kind.
func (r *call) as(row *api.Resource) *call {
	c := *r
	c.row = row
	return &c
}
