package dash

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/internal/api/catalogue"
)

// rights are what the user of a stream may see.
type rights struct {
	user       user.Info
	authorizer authorizer.Authorizer // nil allows everything
	namespace  string                // that the stream is about; empty is all
	// since, if set, asks for what has been allowed since the moment that is shown.
	since func(context.Context) context.Context

	steps   map[[2]string]bool // by resource and namespace, of which steps are shown
	stepsAt time.Time          // when it was made
}

func (r *rights) allowed(ctx context.Context, a authorizer.AttributesRecord) bool {
	if r.authorizer == nil {
		return true
	}
	if r.since != nil {
		ctx = r.since(ctx)
	}
	a.User = r.user
	d, _, err := r.authorizer.Authorize(ctx, a)
	return err == nil && d == authorizer.DecisionAllow
}

// list reports whether the user may list a resource in a namespace; empty is in all.
func (r *rights) list(ctx context.Context, gr schema.GroupResource, namespace string) bool {
	return r.allowed(ctx, authorizer.AttributesRecord{Verb: "list", APIGroup: gr.Group, APIVersion: "*", Resource: gr.Resource, Namespace: namespace, ResourceRequest: true, Path: Path})
}

// may reports whether the user may still see a resource in this stream.
func (r *rights) may(ctx context.Context, of *shown) bool {
	namespace := r.namespace
	if !of.row.Namespaced {
		namespace = ""
	}
	return r.list(ctx, of.row.GroupVersionResource.GroupResource(), namespace)
}

// shown returns the resources that the user may see; none where these are workloads only.
func (r *rights) shown(ctx context.Context, cat *catalogue.Catalogue) []*shown {
	all := []*shown{{class: pod, row: cat.Must("", "v1", "pods")}, {class: node, row: cat.Must("", "v1", "nodes")}}
	for i := range workloads {
		k := &workloads[i]
		all = append(all, &shown{class: owner, workload: k, row: cat.Must(k.group, "v1", k.resource)})
	}
	var out []*shown
	for _, of := range all {
		if of.class == owner && len(out) == 0 {
			return nil
		}
		if !r.may(ctx, of) {
			continue
		}
		of.prefix = of.row.Prefix("")
		if of.row.Namespaced {
			of.prefix = of.row.Prefix(r.namespace)
		}
		out = append(out, of)
	}
	return out
}

// watch calls revoked when the user has lost a right that he had, be it that to the stream.
func (r *rights) watch(ctx context.Context, all []*shown, revoked func()) {
	again := time.NewTicker(rightsPeriod)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		ok := r.allowed(ctx, authorizer.AttributesRecord{Verb: "get", Path: Path})
		for _, of := range all {
			ok = ok && r.may(ctx, of)
		}
		if !ok {
			if ctx.Err() == nil {
				revoked()
			}
			return
		}
	}
}

// sees reports whether the user sees what is done to a resource in a namespace: whether
// he may list it.
func (r *rights) sees(ctx context.Context, resource, namespace string, now time.Time) bool {
	if r.namespace != "" && namespace != "" && namespace != r.namespace {
		return false
	}
	if r.steps == nil || now.Sub(r.stepsAt) >= rightsPeriod {
		r.steps, r.stepsAt = map[[2]string]bool{}, now
	}
	gr := schema.ParseGroupResource(resource)
	in := func(namespace string) bool {
		key := [2]string{resource, namespace}
		ok, known := r.steps[key]
		if !known {
			ok = r.list(ctx, gr, namespace)
			r.steps[key] = ok
		}
		return ok
	}
	return in("") || namespace != "" && in(namespace)
}
