package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	"k8s.io/apiserver/pkg/endpoints/request"
)

type impersonationKey struct{}

// newImpersonation makes upstream's filter (KEP-5284; the older rules alone with
// LegacyImpersonation), which hands a request that may impersonate back to the call
// in its context.
func (s *Server) newImpersonation() http.Handler {
	then := http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		r := req.Context().Value(impersonationKey{}).(*call)
		r.req = req
		r.user, _ = request.UserFrom(req.Context())
	})
	var a authorizer.Authorizer = authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionAllow, "", nil
	})
	if s.Authorizer != nil {
		a = s.Authorizer
	}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	if s.LegacyImpersonation {
		return impersonation.WithImpersonation(then, a, codecs)
	}
	return impersonation.WithConstrainedImpersonation(then, a, codecs)
}

// impersonate makes the request one of the user that its headers name.
func (r *call) impersonate() error {
	h := r.req.Header
	wanted := false
	for name := range h {
		wanted = wanted || strings.HasPrefix(name, "Impersonate-")
	}
	if !wanted {
		return nil
	}
	// The filter's refusal is decoded from JSON, and answered in the form that the
	// client accepts.
	accept := h["Accept"]
	delete(h, "Accept")
	refused := &refusal{header: http.Header{}}
	r.s.impersonation().ServeHTTP(refused, r.req.WithContext(context.WithValue(r.ctx(), impersonationKey{}, r)))
	if accept != nil {
		h["Accept"] = accept
	}
	if refused.code == 0 {
		return nil
	}
	status := &apierrors.StatusError{}
	if err := json.Unmarshal(refused.body.Bytes(), &status.ErrStatus); err != nil || status.ErrStatus.Code == 0 {
		return apierrors.NewInternalError(errors.New(strings.TrimSpace(refused.body.String())))
	}
	return status
}

// refusal is an http.ResponseWriter that records the filter's error.
type refusal struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (w *refusal) Header() http.Header { return w.header }

func (w *refusal) WriteHeader(code int) { w.code = code }

func (w *refusal) Write(b []byte) (int, error) { return w.body.Write(b) }
