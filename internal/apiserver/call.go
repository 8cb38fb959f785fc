package apiserver

import (
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/remote"
)

// call is the processing of one request: authentication, its turn, authorization and
// admission, and the routing to the type that serves it: a reader, writer or deleter,
// an evictor or scaler, a proxied connection, or documents.
type call struct {
	response
	started time.Time
	// came is when it came by the machine's clock, which measures what it takes.
	came time.Time
	// long reports whether the request has no deadline: watches and connections.
	long bool
	// inProcess reports whether it comes from a component of this process.
	inProcess bool
	// timing has how long the parts of the write that is being made take; nil if that is not
	// recorded.
	timing *trace.Timing
	// traced is the place of its last write in a distributed trace.
	traced trace.Context
}

func (r *call) authenticate() error {
	ctx := r.ctx()
	u, inProcess := ctx.Value(inProcessKey{}).(user.Info)
	r.inProcess = inProcess
	switch {
	case inProcess:
	case r.s.Authenticator == nil:
		u = &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
	default:
		resp, ok, err := r.s.Authenticator.AuthenticateRequest(r.req)
		if err != nil || !ok {
			if err != nil {
				klog.FromContext(ctx).V(3).Info("Unable to authenticate the request", "err", err)
			}
			return apierrors.NewUnauthorized("Unauthorized")
		}
		u = resp.User
	}
	r.user = u
	forget(r.req.Header)
	r.req = r.req.WithContext(request.WithUser(ctx, r.user))
	return nil
}

// anonymous reports whether u is the anonymous user.
func anonymous(u user.Info) bool {
	return u.GetName() == user.Anonymous || slices.Contains(u.GetGroups(), user.AllUnauthenticated)
}

func (r *call) authorize() error {
	if r.s.Authorizer == nil {
		return nil
	}
	a := r.Attributes()
	decision, reason, err := r.s.Authorizer.Authorize(r.ctx(), a)
	r.decided(decision, reason)
	switch decision {
	case authorizer.DecisionAllow:
		r.s.metrics.allowed.Inc()
	case authorizer.DecisionDeny:
		r.s.metrics.denied.Inc()
	default:
		r.s.metrics.undecided.Inc()
	}
	return r.judged(a, decision, reason, err)
}

// serve routes an allowed request.
func (r *call) serve() error {
	if err := r.locate(); err != nil {
		return err
	}
	if name, ok := r.ctx().Value(viewKey{}).(string); ok {
		return r.inView(name)
	}
	if !r.info.IsResourceRequest {
		return documents{r}.serveNonResource()
	}
	i := r.info
	if r.aggregated(i.APIGroup, i.APIVersion) {
		return nil
	}
	r.row = r.s.Catalogue.Lookup(i.APIGroup, i.APIVersion, i.Resource)
	if r.row == nil || r.s.Catalogue.Hides(r.row.GroupVersionResource) && !r.inProcess || (!r.row.Namespaced && i.Namespace != "" && !r.row.IsNamespace) {
		return r.notFoundPath()
	}
	switch i.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		r.checkCause()
		if t := r.s.Tracer; t != nil && !r.row.NotStored && t.Traces(r.groupResource()) {
			r.timing = trace.NewTiming(r.came, t)
		}
	}
	if r.row.Deprecation != "" {
		r.warnings.AddWarning("", r.row.Deprecation)
	}
	if i.Subresource != "" {
		return r.serveSubresource()
	}
	if r.row.NotStored {
		return r.serveComputed()
	}
	verb := i.Verb
	if r.row.Namespaced && i.Namespace == "" && verb != "list" && verb != "watch" {
		return r.methodNotSupported()
	}
	if (verb == "update" || verb == "patch") && i.Name == "" || verb == "create" && i.Name != "" {
		return r.methodNotSupported()
	}
	if !r.row.HasVerb(verb) {
		return r.methodNotSupported()
	}
	switch verb {
	case "create", "update", "patch", "delete":
		err := r.writeOne(verb)
		r.refused(verb, err)
		return err
	case "get":
		return reader{r}.get()
	case "list":
		return reader{r}.list()
	case "watch":
		return reader{r}.watch()
	case "deletecollection":
		return newDeleter(r).deleteCollection()
	}
	return r.methodNotSupported()
}

// checkCause passes over the cause that a request from outside names if its user is none of
// those who report what components do: others could blame their writes on anybody.
func (r *call) checkCause() {
	if _, ok := trace.CauseFrom(r.ctx()); !ok || r.inProcess {
		return
	}
	if r.Allowed(authorizer.AttributesRecord{User: r.user, Verb: "post", Path: remote.Path}) != nil {
		r.req = r.req.WithContext(trace.WithoutCause(r.ctx()))
	}
}

// writeOne serves a write of one object.
func (r *call) writeOne(verb string) error {
	switch verb {
	case "create":
		if r.row.Terminating != "" {
			err := r.methodNotSupported()
			err.(*apierrors.StatusError).ErrStatus.Message = r.row.Terminating //nolint:errorlint // made above, not wrapped
			return err
		}
		return (&writer{call: r}).create()
	case "update":
		return (&writer{call: r}).update(&r.row.UpdateStrategy)
	case "patch":
		return (&writer{call: r}).patch(&r.row.UpdateStrategy)
	}
	return newDeleter(r).delete()
}

// refused records that a write was not made because admission or validation did not
// allow it.
func (r *call) refused(verb string, err error) {
	if r.timing == nil || !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) && !apierrors.IsInternalError(err) || r.key().dryRun {
		return
	}
	(&writer{call: r}).recorded(Write{Resource: r.row, Verb: verb, Refused: err, Namespace: r.info.Namespace, Name: r.info.Name})
}

// aggregated passes the request on if another server serves the group version,
// and reports whether it did.
func (r *call) aggregated(group, version string) bool {
	if r.s.Aggregation == nil {
		return false
	}
	h := r.s.Aggregation.Handler(group, version)
	if h == nil {
		return false
	}
	r.code = http.StatusOK
	h.ServeHTTP(r.w, r.req)
	return true
}

// proceed answers the request of an authenticated user.
func (r *call) proceed() {
	err := r.authorize()
	if err == nil {
		if r.long && r.hasUnboundBody() {
			_ = r.conn.SetReadDeadline(time.Time{}) // without a deadline
		}
		err = r.serve()
	} else {
		r.w.Header().Set("X-Content-Type-Options", "nosniff") // the error repeats what was asked for
	}
	if err != nil {
		r.fail(err)
	}
}
