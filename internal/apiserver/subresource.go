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
		return newScaler(r).scale()
	default:
		strategy = r.row.Updates[sub]
	}
	if strategy != nil {
		switch r.info.Verb {
		case "get":
			return reader{r}.get()
		case "update":
			return (&writer{call: r}).update(strategy)
		case "patch":
			return (&writer{call: r}).patch(strategy)
		}
		return r.methodNotSupported()
	}
	for i := range r.row.Subresources {
		if r.row.Subresources[i].Name == sub {
			if f := handlers[endpoint{r.row.Group, r.row.Resource, sub}]; f != nil {
				return f(r)
			}
		}
	}
	return r.notFoundPath()
}

// serveComputed answers for the rows that are not stored.
func (r *call) serveComputed() error {
	if !r.row.HasVerb(r.info.Verb) {
		return r.methodNotSupported()
	}
	if f := handlers[endpoint{group: r.row.Group, resource: r.row.Resource}]; f != nil {
		return f(r)
	}
	return reader{r}.readComputed()
}

// as returns r with another row for bodies and answers: that of a subresource's
// kind.
func (r *call) as(row *api.Resource) *call {
	c := *r
	c.row = row
	return &c
}
