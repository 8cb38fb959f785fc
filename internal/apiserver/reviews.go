package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	operators "k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/internal/api/authentication"
	"keelson.dev/keelson/internal/api/row"
)

// Tokens issues service accounts' tokens.
type Tokens interface {
	// Audiences gives the audiences of the API server itself.
	Audiences() []string
	// Request issues the token that tr, with its defaults, asks for, for sa, and
	// fills in its status.
	Request(ctx context.Context, sa *v1.ServiceAccount, tr *authenticationv1.TokenRequest) error
}

// issueToken serves serviceaccounts/token.
func issueToken(r *call) error {
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
	invalid := func(name string, errs ...*field.Error) error {
		return apierrors.NewInvalid(gvk.GroupKind(), name, errs)
	}
	authentication.DefaultTokenRequest(tr)
	attrs := admission.NewAttributesRecord(tr, nil, gvk, sa.Namespace, sa.Name, r.row.GroupVersionResource, "token", admission.Create, opts, isDryRun(opts.DryRun), r.user)
	if err := r.mutate(attrs); err != nil {
		return err
	}
	switch {
	case tr.Name != "" && tr.Name != sa.Name:
		return invalid(sa.Name, field.Invalid(field.NewPath("metadata", "name"), tr.Name, "must match the service account name if specified"))
	case tr.Namespace != "" && tr.Namespace != sa.Namespace:
		return badRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if tr.UID != "" && tr.UID != sa.UID {
		return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, sa.Name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", tr.UID, sa.UID))
	}
	if len(tr.Spec.Audiences) == 0 {
		tr.Spec.Audiences = r.s.Tokens.Audiences()
	}
	tr.Name, tr.Namespace, tr.UID = sa.Name, sa.Namespace, sa.UID
	tr.CreationTimestamp, tr.Status = metav1.Now().Rfc3339Copy(), authenticationv1.TokenRequestStatus{}
	if errs := authentication.ValidateTokenRequest(tr); len(errs) > 0 {
		return invalid("", errs...)
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

// review makes the handler of a kind whose status is the answer, which answer fills
// in. complete, if set, returns an error where the question lacks something.
func review[T row.Object](answer func(r *call, o T) error, complete func(o T) error) func(*call) error {
	return func(r *call) error {
		opts := &metav1.CreateOptions{}
		if err := r.options(opts); err != nil {
			return err
		}
		obj, err := r.decode(r.row.New(), r.row.GVK(), opts.FieldValidation)
		if err != nil {
			return err
		}
		o := obj.(T)
		o.SetUID("")
		o.SetCreationTimestamp(metav1.Time{})
		o.SetDeletionTimestamp(nil)
		o.SetDeletionGracePeriodSeconds(nil)
		o.SetSelfLink("")
		if err := r.place(o); err != nil {
			return err
		}
		gvk := r.row.GVK()
		attrs := admission.NewAttributesRecord(o, nil, gvk, r.info.Namespace, "", r.row.GroupVersionResource, "", admission.Create, opts, isDryRun(opts.DryRun), r.user)
		if err := r.mutate(attrs); err != nil {
			return err
		}
		if err := r.place(o); err != nil {
			return err
		}
		if r.row.Validate != nil {
			if errs := r.row.Validate(o); len(errs) > 0 {
				// Upstream's error does not know the kind either.
				return apierrors.NewInvalid(schema.GroupKind{Group: gvk.Group}, "", errs)
			}
		}
		if complete != nil {
			if err := complete(o); err != nil {
				return err
			}
		}
		if err := r.validate(attrs); err != nil {
			return err
		}
		if err := answer(r, o); err != nil {
			return err
		}
		o.GetObjectKind().SetGroupVersionKind(gvk)
		a, err := r.accept(nil)
		if err != nil {
			return err
		}
		return r.writeAs(http.StatusCreated, a, o)
	}
}

func tokenGiven(o *authenticationv1.TokenReview) error {
	if o.Spec.Token == "" {
		return badRequest("token is required for TokenReview in authentication")
	}
	return nil
}

func namespaceGiven(o *authorizationv1.SelfSubjectRulesReview) error {
	if o.Spec.Namespace == "" {
		return badRequest("no namespace on request")
	}
	return nil
}

func reviewSelf(r *call, o *authenticationv1.SelfSubjectReview) error {
	*o = authenticationv1.SelfSubjectReview{Status: authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(r.user)}}
	o.CreationTimestamp = metav1.Now().Rfc3339Copy()
	return nil
}

func reviewSubjectAccess(r *call, o *authorizationv1.SubjectAccessReview) error {
	o.Status = reviewAccess(r, reviewed(&o.Spec), o.Spec.ResourceAttributes, o.Spec.NonResourceAttributes)
	return nil
}

func reviewLocalAccess(r *call, o *authorizationv1.LocalSubjectAccessReview) error {
	o.Status = reviewAccess(r, reviewed(&o.Spec), o.Spec.ResourceAttributes, o.Spec.NonResourceAttributes)
	return nil
}

func reviewSelfAccess(r *call, o *authorizationv1.SelfSubjectAccessReview) error {
	o.Status = reviewAccess(r, r.user, o.Spec.ResourceAttributes, o.Spec.NonResourceAttributes)
	return nil
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

func reviewToken(r *call, o *authenticationv1.TokenReview) error {
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

// fieldRequirements gives the requirements that a review has on the fields of a
// request. Operators of later versions are left out: the request is then taken
// to be wider than it is.
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

// reviewed gives the user that a review is about.
func reviewed(s *authorizationv1.SubjectAccessReviewSpec) user.Info {
	extra := map[string][]string{}
	for k, v := range s.Extra {
		extra[k] = v
	}
	return &user.DefaultInfo{Name: s.User, UID: s.UID, Groups: s.Groups, Extra: extra}
}

// reviewAccess gives the authorizers' decision on what u asks for, which is one
// of ra and other.
func reviewAccess(r *call, u user.Info, ra *authorizationv1.ResourceAttributes, other *authorizationv1.NonResourceAttributes) (status authorizationv1.SubjectAccessReviewStatus) {
	a := authorizer.AttributesRecord{User: u}
	if ra != nil {
		a.Verb, a.Namespace, a.APIGroup, a.APIVersion = ra.Verb, ra.Namespace, ra.Group, cmp.Or(ra.Version, "*")
		a.Resource, a.Subresource, a.Name, a.ResourceRequest = ra.Resource, ra.Subresource, ra.Name, true
		a.FieldSelectorRequirements, a.FieldSelectorParsingErr = fieldRequirements(ra.FieldSelector)
		a.LabelSelectorRequirements, a.LabelSelectorParsingErr = labelRequirements(ra.LabelSelector)
	} else {
		a.Verb, a.Path = other.Verb, other.Path
	}
	if r.s.Authorizer == nil {
		status.Allowed = true
		return status
	}
	decision, reason, err := r.s.Authorizer.Authorize(r.ctx(), a)
	status.Allowed = decision == authorizer.DecisionAllow
	status.Denied = decision == authorizer.DecisionDeny
	status.Reason = reason
	var trouble []string
	if err != nil {
		trouble = append(trouble, err.Error())
	}
	selector := func(name string, understood int, err error) {
		switch {
		case err != nil && understood > 0:
			trouble = append(trouble, "spec.resourceAttributes."+name+" partially ignored due to parse error")
		case err != nil:
			trouble = append(trouble, "spec.resourceAttributes."+name+" ignored due to parse error")
		}
	}
	selector("fieldSelector", len(a.FieldSelectorRequirements), a.FieldSelectorParsingErr)
	selector("labelSelector", len(a.LabelSelectorRequirements), a.LabelSelectorParsingErr)
	status.EvaluationError = strings.Join(trouble, "; ")
	return status
}

// reviewRules lists what the user may do in the review's namespace. The answer
// does not repeat the question.
func reviewRules(r *call, o *authorizationv1.SelfSubjectRulesReview) error {
	namespace := o.Spec.Namespace
	*o = authorizationv1.SelfSubjectRulesReview{}
	o.Status.ResourceRules = []authorizationv1.ResourceRule{}
	o.Status.NonResourceRules = []authorizationv1.NonResourceRule{}
	if r.s.RuleResolver == nil {
		o.Status.Incomplete = true
		return nil
	}
	ctx := request.WithNamespace(r.ctx(), namespace)
	rules, nonResource, incomplete, err := r.s.RuleResolver.RulesFor(ctx, r.user, namespace)
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
