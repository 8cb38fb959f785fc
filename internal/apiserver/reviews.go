package apiserver

import (
	"context"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"

	"keelson.dev/keelson/internal/api/authentication"
	"keelson.dev/keelson/internal/api/row"
	"keelson.dev/keelson/internal/apiserver/review"
)

// Tokens issues service accounts' tokens.
type Tokens interface {
	// Audiences returns the audiences of the API server itself.
	Audiences() []string
	// Request issues the token for sa that tr, with its defaults, asks for, and
	// fills in tr's status.
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

// reviewHandler makes the handler of a kind whose status is the answer, which answer fills
// in. complete, if set, returns an error where the question is incomplete.
func reviewHandler[T row.Object](answer func(r *call, o T) error, complete func(o T) error) func(*call) error {
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
				// Upstream's error lacks the kind, too.
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
	*o = authenticationv1.SelfSubjectReview{Status: authenticationv1.SelfSubjectReviewStatus{UserInfo: review.UserInfo(r.user)}}
	o.CreationTimestamp = metav1.Now().Rfc3339Copy()
	return nil
}

func reviewSubjectAccess(r *call, o *authorizationv1.SubjectAccessReview) error {
	o.Status = review.Access(r.ctx(), r.s.Authorizer, review.Subject(&o.Spec), o.Spec.ResourceAttributes, o.Spec.NonResourceAttributes)
	return nil
}

func reviewLocalAccess(r *call, o *authorizationv1.LocalSubjectAccessReview) error {
	o.Status = review.Access(r.ctx(), r.s.Authorizer, review.Subject(&o.Spec), o.Spec.ResourceAttributes, o.Spec.NonResourceAttributes)
	return nil
}

func reviewSelfAccess(r *call, o *authorizationv1.SelfSubjectAccessReview) error {
	o.Status = review.Access(r.ctx(), r.s.Authorizer, r.user, o.Spec.ResourceAttributes, o.Spec.NonResourceAttributes)
	return nil
}

func reviewToken(r *call, o *authenticationv1.TokenReview) error {
	if r.s.TokenAuthenticator == nil {
		return apierrors.NewServiceUnavailable("this server checks no tokens")
	}
	review.Token(r.ctx(), r.s.TokenAuthenticator, o)
	return nil
}

// reviewRules lists what the user may do in the review's namespace. The answer
// does not repeat the question.
func reviewRules(r *call, o *authorizationv1.SelfSubjectRulesReview) error {
	*o = authorizationv1.SelfSubjectRulesReview{Status: review.Rules(r.ctx(), r.s.RuleResolver, r.user, o.Spec.Namespace)}
	return nil
}
