package apiserver

import (
	"context"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/types"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/dash"
	"keelson.dev/keelson/internal/trace"
)

// Annotations of the audit log, upstream's.
const (
	annotationDecision = "authorization.k8s.io/decision"
	annotationReason   = "authorization.k8s.io/reason"
)

// annotationMoment of the audit log is the moment of the past that was read, which the
// request's URI there lacks.
const annotationMoment = "keelson.dev/at"

// identify sets the request's ID for the audit log: the client's Audit-ID header,
// or a new one.
func (r *call) identify() {
	id := r.req.Header.Get(auditinternal.HeaderAuditID)
	if id == "" {
		id = uuid.NewString()
	}
	r.w.Header().Set(auditinternal.HeaderAuditID, id)
	if r.s.Audit != nil {
		ctx := r.ctx()
		if outer := audit.AuditContextFrom(ctx); outer != nil {
			ctx = unaudited{ctx, outer}
		}
		ctx = audit.WithAuditContext(ctx)
		audit.WithAuditID(ctx, types.UID(id))
		r.req = r.req.WithContext(ctx)
	}
}

// unaudited is a context without the audit context of the request in the course of which
// this one is made, within the process: each is recorded by itself.
type unaudited struct {
	context.Context
	outer *audit.AuditContext
}

// Value implements context.Context.
func (c unaudited) Value(key any) any {
	v := c.Context.Value(key)
	if v == any(c.outer) {
		return nil
	}
	return v
}

// audited calls f to answer the request, and records the stages of the request
// in the audit log.
func (r *call) audited(f func()) {
	if r.s.Audit == nil {
		f()
		return
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.w, r.req = w, req
		f()
	})
	filters.WithAudit(h, r.s.Audit.Backend, r.s.Audit.Policy, longRunning).ServeHTTP(r.w, r.req)
}

// auditUnauthenticated calls f to refuse the request, and records that in the
// audit log.
func (r *call) auditUnauthenticated(f func()) {
	if r.s.Audit == nil {
		f()
		return
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.w, r.req = w, req
		f()
	})
	filters.WithFailedAuthenticationAudit(h, r.s.Audit.Backend, r.s.Audit.Policy).ServeHTTP(r.w, r.req)
}

// longRunning reports whether a request has no deadline: watches and
// connections.
func longRunning(req *http.Request, i *request.RequestInfo) bool {
	switch {
	case i == nil:
		return false
	case i.Verb == "watch" || i.Verb == "proxy":
		return true
	case !i.IsResourceRequest:
		return i.Path == dash.Path || i.Path == trace.Path && strings.Contains(req.URL.RawQuery, "watch=true") || len(i.Path) > 12 && i.Path[:12] == "/debug/pprof"
	}
	switch i.Subresource {
	case "attach", "exec", "proxy", "log", "portforward":
		return true
	}
	return false
}

// decided records the authorizer's decision.
func (r *incoming) decided(d authorizer.Decision, reason string) {
	if r.s.Audit == nil {
		return
	}
	decision := "forbid"
	if d == authorizer.DecisionAllow {
		decision = "allow"
	}
	audit.AddAuditAnnotations(r.ctx(), annotationDecision, decision, annotationReason, reason)
}

// auditMoment records the moment of the past that is read.
func (r *incoming) auditMoment(moment string) {
	if r.s.Audit != nil {
		audit.AddAuditAnnotations(r.ctx(), annotationMoment, moment)
	}
}

// level returns the audit level of the request.
func (r *incoming) level() auditinternal.Level {
	if r.s.Audit == nil {
		return auditinternal.LevelNone
	}
	if ac := audit.AuditContextFrom(r.ctx()); ac.Enabled() {
		return ac.GetEventLevel()
	}
	return auditinternal.LevelNone
}

// auditRequest records the object that came with the request.
func (r *incoming) auditRequest(obj runtime.Object) {
	if r.level() == auditinternal.LevelNone {
		return
	}
	if r.row != nil {
		audit.LogRequestObject(r.ctx(), withGVK(r.row.GVK(), obj), r.row.GroupVersion(), r.row.GroupVersionResource, r.info.Subresource, auditCodec{})
	}
}

// auditPatch records the patch that came with the request.
func (r *incoming) auditPatch(patch []byte) {
	if r.level() != auditinternal.LevelNone {
		audit.LogRequestPatch(r.ctx(), patch)
	}
}

// auditResponse records the answer, whose kind is set.
func (r *incoming) auditResponse(obj runtime.Object) {
	if r.level() != auditinternal.LevelNone {
		audit.LogResponseObject(r.ctx(), obj, obj.GetObjectKind().GroupVersionKind().GroupVersion(), auditCodec{})
	}
}

// wantsResponse reports whether the audit log records the answer.
func (r *incoming) wantsResponse() bool { return r.level() == auditinternal.LevelRequestResponse }

// auditCodec writes objects as they are: their kinds are set.
type auditCodec struct{}

var auditJSON = json.NewSerializerWithOptions(json.DefaultMetaFactory, nil, nil, json.SerializerOptions{})

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (auditCodec) SupportedMediaTypes() []runtime.SerializerInfo {
	return []runtime.SerializerInfo{{MediaType: runtime.ContentTypeJSON, Serializer: auditJSON}}
}

// EncoderForVersion implements runtime.NegotiatedSerializer.
func (auditCodec) EncoderForVersion(e runtime.Encoder, _ runtime.GroupVersioner) runtime.Encoder {
	return e
}

// DecoderToVersion implements runtime.NegotiatedSerializer: nothing is decoded.
func (auditCodec) DecoderToVersion(d runtime.Decoder, _ runtime.GroupVersioner) runtime.Decoder {
	return d
}
