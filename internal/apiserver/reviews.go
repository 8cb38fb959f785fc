package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	operators "k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/store"
)

// Tokens issues service accounts' tokens.
type Tokens interface {
	// Request issues the token that tr asks for, for sa, and fills in its status.
	Request(ctx context.Context, sa *v1.ServiceAccount, tr *authenticationv1.TokenRequest) error
}

func insecureTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see insecure
	return t
}

// token serves serviceaccounts/token.
func (r *call) token() error {
	if r.info.Verb != "create" {
		return r.methodNotSupported()
	}
	if r.s.Tokens == nil {
		return apierrors.NewServiceUnavailable("this server issues no tokens")
	}
	e, err := r.entry()
	if err != nil {
		return err
	}
	gvk := authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
	opts := &metav1.CreateOptions{}
	if err := r.options(opts); err != nil {
		return err
	}
	obj, err := r.decode(&authenticationv1.TokenRequest{}, gvk, opts.FieldValidation)
	if err != nil {
		return err
	}
	tr := obj.(*authenticationv1.TokenRequest)
	sa := e.Object().(*v1.ServiceAccount)
	if tr.Name != "" && tr.Name != sa.Name {
		return badRequest("name in URL does not match name in TokenRequest object")
	}
	tr.Name, tr.Namespace = sa.Name, sa.Namespace
	tr.CreationTimestamp = metav1.Now().Rfc3339Copy()
	attrs := admission.NewAttributesRecord(tr, nil, gvk, sa.Namespace, sa.Name, r.row.GroupVersionResource, "token", admission.Create, opts, isDryRun(opts.DryRun), r.user)
	if err := r.mutate(attrs); err != nil {
		return err
	}
	if err := r.validate(attrs); err != nil {
		return err
	}
	if err := r.s.Tokens.Request(r.ctx(), sa, tr); err != nil {
		return err
	}
	tr.SetGroupVersionKind(gvk)
	a, err := r.accept(nil)
	if err != nil {
		return err
	}
	return r.writeAs(http.StatusCreated, a, tr)
}

// review answers the kinds whose status is the answer.
func (r *call) review() error {
	opts := &metav1.CreateOptions{}
	if err := r.options(opts); err != nil {
		return err
	}
	obj, err := r.decode(r.row.New(), r.row.GVK(), opts.FieldValidation)
	if err != nil {
		return err
	}
	gvk := r.row.GVK()
	attrs := admission.NewAttributesRecord(obj, nil, gvk, r.info.Namespace, "", r.row.GroupVersionResource, "", admission.Create, opts, isDryRun(opts.DryRun), r.user)
	if err := r.mutate(attrs); err != nil {
		return err
	}
	if err := r.validate(attrs); err != nil {
		return err
	}
	switch o := obj.(type) {
	case *authenticationv1.TokenReview:
		err = r.reviewToken(o)
	case *authenticationv1.SelfSubjectReview:
		o.CreationTimestamp = metav1.Now().Rfc3339Copy()
		o.Status.UserInfo = userInfo(r.user)
	case *authorizationv1.SubjectAccessReview:
		err = r.reviewAccess(&o.Spec, &o.Status)
	case *authorizationv1.LocalSubjectAccessReview:
		if o.Spec.ResourceAttributes == nil || o.Spec.ResourceAttributes.Namespace != r.info.Namespace {
			return apierrors.NewInvalid(gvk.GroupKind(), "", field.ErrorList{field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), "", "must match metadata.namespace")})
		}
		o.Namespace = r.info.Namespace
		err = r.reviewAccess(&o.Spec, &o.Status)
	case *authorizationv1.SelfSubjectAccessReview:
		extra := map[string]authorizationv1.ExtraValue{}
		for k, v := range r.user.GetExtra() {
			extra[k] = v
		}
		spec := authorizationv1.SubjectAccessReviewSpec{
			ResourceAttributes: o.Spec.ResourceAttributes, NonResourceAttributes: o.Spec.NonResourceAttributes,
			User: r.user.GetName(), Groups: r.user.GetGroups(), UID: r.user.GetUID(), Extra: extra,
		}
		err = r.reviewAccess(&spec, &o.Status)
	case *authorizationv1.SelfSubjectRulesReview:
		err = r.reviewRules(o)
	default:
		return r.methodNotSupported()
	}
	if err != nil {
		return err
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	a, err := r.accept(nil)
	if err != nil {
		return err
	}
	return r.writeAs(http.StatusCreated, a, obj)
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}

func (r *call) reviewToken(o *authenticationv1.TokenReview) error {
	if o.Spec.Token == "" {
		return badRequest("token is required for TokenReview in authentication")
	}
	if r.s.TokenAuthenticator == nil {
		return apierrors.NewServiceUnavailable("this server checks no tokens")
	}
	ctx := r.ctx()
	if len(o.Spec.Audiences) > 0 {
		ctx = authenticator.WithAudiences(ctx, o.Spec.Audiences)
	}
	resp, ok, err := r.s.TokenAuthenticator.AuthenticateToken(ctx, o.Spec.Token)
	o.Status.Authenticated = ok && err == nil
	if err != nil {
		o.Status.Error = err.Error()
	}
	if o.Status.Authenticated {
		o.Status.User = userInfo(resp.User)
		o.Status.Audiences = resp.Audiences
	}
	return nil
}

// fieldRequirements are what a review says of the fields that a request
// selects. Of what only later versions know, nothing is said: the request is
// then taken to be wider than it is.
func fieldRequirements(a *authorizationv1.FieldSelectorAttributes) (out fields.Requirements, err error) {
	if a == nil {
		return nil, nil
	}
	if a.RawSelector != "" {
		s, err := fields.ParseSelector(a.RawSelector)
		if err != nil {
			return nil, err
		}
		return s.Requirements(), nil
	}
	for _, r := range a.Requirements {
		op, ok := map[metav1.FieldSelectorOperator]operators.Operator{metav1.FieldSelectorOpIn: operators.Equals, metav1.FieldSelectorOpNotIn: operators.NotEquals}[r.Operator]
		if !ok || len(r.Values) != 1 {
			err = errors.Join(err, fmt.Errorf("field selector of %s: operator %s with %d values is not known", r.Key, r.Operator, len(r.Values)))
			continue
		}
		out = append(out, fields.Requirement{Field: r.Key, Operator: op, Value: r.Values[0]})
	}
	return out, err
}

// labelRequirements are the same of labels.
func labelRequirements(a *authorizationv1.LabelSelectorAttributes) (out labels.Requirements, err error) {
	if a == nil {
		return nil, nil
	}
	if a.RawSelector != "" {
		s, err := labels.Parse(a.RawSelector)
		if err != nil {
			return nil, err
		}
		out, _ = s.Requirements()
		return out, nil
	}
	for i := range a.Requirements {
		s, serr := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: a.Requirements[i : i+1]})
		if serr != nil {
			err = errors.Join(err, serr)
			continue
		}
		reqs, _ := s.Requirements()
		out = append(out, reqs...)
	}
	return out, err
}

func (r *call) reviewAccess(spec *authorizationv1.SubjectAccessReviewSpec, status *authorizationv1.SubjectAccessReviewStatus) error {
	invalid := func(e *field.Error) error {
		return apierrors.NewInvalid(r.row.GVK().GroupKind(), "", field.ErrorList{e})
	}
	at := field.NewPath("spec")
	switch {
	case spec.ResourceAttributes != nil && spec.NonResourceAttributes != nil:
		return invalid(field.Invalid(at.Child("nonResourceAttributes"), spec.NonResourceAttributes, "cannot be specified in combination with resourceAttributes"))
	case spec.ResourceAttributes == nil && spec.NonResourceAttributes == nil:
		return invalid(field.Invalid(at.Child("resourceAttributes"), spec.NonResourceAttributes, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
	case spec.User == "" && len(spec.Groups) == 0:
		return invalid(field.Invalid(at.Child("user"), spec.User, "at least one of user or group must be specified"))
	}
	extra := map[string][]string{}
	for k, v := range spec.Extra {
		extra[k] = v
	}
	a := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: spec.User, UID: spec.UID, Groups: spec.Groups, Extra: extra}}
	if ra := spec.ResourceAttributes; ra != nil {
		a.Verb, a.Namespace, a.APIGroup, a.APIVersion = ra.Verb, ra.Namespace, ra.Group, ra.Version
		a.Resource, a.Subresource, a.Name, a.ResourceRequest = ra.Resource, ra.Subresource, ra.Name, true
		a.FieldSelectorRequirements, a.FieldSelectorParsingErr = fieldRequirements(ra.FieldSelector)
		a.LabelSelectorRequirements, a.LabelSelectorParsingErr = labelRequirements(ra.LabelSelector)
	} else {
		a.Verb, a.Path = spec.NonResourceAttributes.Verb, spec.NonResourceAttributes.Path
	}
	if r.s.Authorizer == nil {
		status.Allowed = true
		return nil
	}
	decision, reason, err := r.s.Authorizer.Authorize(r.ctx(), a)
	status.Allowed = decision == authorizer.DecisionAllow
	status.Denied = decision == authorizer.DecisionDeny
	status.Reason = reason
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return nil
}

func (r *call) reviewRules(o *authorizationv1.SelfSubjectRulesReview) error {
	if o.Spec.Namespace == "" {
		return badRequest("no namespace on request")
	}
	o.Status.ResourceRules = []authorizationv1.ResourceRule{}
	o.Status.NonResourceRules = []authorizationv1.NonResourceRule{}
	if r.s.RuleResolver == nil {
		o.Status.Incomplete = true
		return nil
	}
	ctx := request.WithNamespace(r.ctx(), o.Spec.Namespace)
	rules, nonResource, incomplete, err := r.s.RuleResolver.RulesFor(ctx, r.user, o.Spec.Namespace)
	o.Status.Incomplete = incomplete
	if err != nil {
		o.Status.EvaluationError = err.Error()
	}
	for _, x := range rules {
		o.Status.ResourceRules = append(o.Status.ResourceRules, authorizationv1.ResourceRule{Verbs: x.GetVerbs(), APIGroups: x.GetAPIGroups(), Resources: x.GetResources(), ResourceNames: x.GetResourceNames()})
	}
	for _, x := range nonResource {
		o.Status.NonResourceRules = append(o.Status.NonResourceRules, authorizationv1.NonResourceRule{Verbs: x.GetVerbs(), NonResourceURLs: x.GetNonResourceURLs()})
	}
	return nil
}

// componentStatuses are those of the parts that upstream reports.
func (r *call) componentStatuses() error {
	all := []runtime.Object{}
	get := r.info.Verb == "get"
	_, sel, err := r.listOptions()
	if err != nil && !get {
		return err
	}
	for _, name := range []string{"controller-manager", "etcd-0", "scheduler"} {
		c := v1.ComponentCondition{Type: v1.ComponentHealthy, Status: v1.ConditionTrue, Message: "ok"}
		if name == "etcd-0" {
			if err := r.s.storeAlive(); err != nil {
				c.Status, c.Message, c.Error = v1.ConditionFalse, "", err.Error()
			}
		}
		cs := &v1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Conditions: []v1.ComponentCondition{c}}
		switch {
		case get && r.info.Name == name:
			return r.writeObject(http.StatusOK, cs)
		case !get && (sel.trivial || sel.matches(store.Unstored(cs))):
			all = append(all, cs)
		}
	}
	switch {
	case get:
		return apierrors.NewNotFound(r.groupResource(), r.info.Name)
	case r.info.Verb != "list":
		return r.methodNotSupported()
	}
	a, err := r.accept(canTransform)
	if err != nil {
		return err
	}
	if a.as.Kind == "Table" {
		t, err := r.table(all, metav1.ListMeta{})
		if err != nil {
			return err
		}
		return r.writeAs(http.StatusOK, a, t)
	}
	list, err := listOf(r.row, all, metav1.ListMeta{})
	if err != nil {
		return err
	}
	return r.writeAs(http.StatusOK, a, list)
}
