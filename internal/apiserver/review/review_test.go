package review

import (
	"context"
	"errors"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

func TestAccess(t *testing.T) {
	const partly, not = "spec.resourceAttributes.fieldSelector partially ignored due to parse error", "spec.resourceAttributes.labelSelector ignored due to parse error"
	in := metav1.FieldSelectorRequirement{Key: "spec.nodeName", Operator: metav1.FieldSelectorOpIn, Values: []string{"n"}}
	later := metav1.FieldSelectorRequirement{Key: "spec.nodeName", Operator: "Later"}
	for _, c := range []struct {
		name     string
		resource *authorizationv1.ResourceAttributes
		other    *authorizationv1.NonResourceAttributes
		fields   int
		version  string
		trouble  string
	}{
		{name: "a path", other: &authorizationv1.NonResourceAttributes{Verb: "get", Path: "/metrics"}},
		{name: "any version", resource: &authorizationv1.ResourceAttributes{Verb: "list", Resource: "pods"}, version: "*"},
		{name: "a version", resource: &authorizationv1.ResourceAttributes{Verb: "list", Resource: "pods", Version: "v1"}, version: "v1"},
		{name: "raw fields", resource: &authorizationv1.ResourceAttributes{FieldSelector: &authorizationv1.FieldSelectorAttributes{RawSelector: "a=b,c!=d"}}, version: "*", fields: 2},
		{name: "an operator of a later version", resource: &authorizationv1.ResourceAttributes{FieldSelector: &authorizationv1.FieldSelectorAttributes{
			Requirements: []metav1.FieldSelectorRequirement{in, later}}}, version: "*", fields: 1, trouble: partly},
		{name: "labels that cannot be read", resource: &authorizationv1.ResourceAttributes{LabelSelector: &authorizationv1.LabelSelectorAttributes{RawSelector: "=,"}}, version: "*", trouble: not},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen authorizer.Attributes
			by := authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				seen = a
				return authorizer.DecisionDeny, "because", nil
			})
			got := Access(t.Context(), by, &user.DefaultInfo{Name: "u"}, c.resource, c.other)
			if got.Allowed || !got.Denied || got.Reason != "because" || got.EvaluationError != c.trouble {
				t.Errorf("got %+v, want a denial with the trouble %q", got, c.trouble)
			}
			requirements, _ := seen.GetFieldSelector()
			if seen.GetUser().GetName() != "u" || seen.IsResourceRequest() != (c.resource != nil) || seen.GetAPIVersion() != c.version || len(requirements) != c.fields {
				t.Errorf("the authorizer was asked %+v", seen)
			}
		})
	}
	if !Access(t.Context(), nil, &user.DefaultInfo{}, nil, &authorizationv1.NonResourceAttributes{}).Allowed {
		t.Error("without an authorizer, nothing is allowed")
	}
}

func TestToken(t *testing.T) {
	by := authenticator.TokenFunc(func(ctx context.Context, token string) (*authenticator.Response, bool, error) {
		wanted, _ := authenticator.AudiencesFrom(ctx)
		if token != "good" {
			return nil, false, errors.New("bad token")
		}
		return &authenticator.Response{User: &user.DefaultInfo{Name: "u", Extra: map[string][]string{"k": {"v"}}}, Audiences: wanted}, true, nil
	})
	o := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "good", Audiences: []string{"a"}}}
	Token(t.Context(), by, o)
	if s := o.Status; !s.Authenticated || s.User.Username != "u" || s.User.Extra["k"][0] != "v" || len(s.Audiences) != 1 || s.Audiences[0] != "a" {
		t.Errorf("a good token: %+v", s)
	}
	o = &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "other"}}
	Token(t.Context(), by, o)
	if o.Status.Authenticated || o.Status.Error != "bad token" {
		t.Errorf("a bad token: %+v", o.Status)
	}
}

type rules struct{}

func (rules) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{Verbs: []string{"get"}, Resources: []string{u.GetName()}, ResourceNames: []string{namespace}}},
		[]authorizer.NonResourceRuleInfo{&authorizer.DefaultNonResourceRuleInfo{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz"}}}, true, errors.New("a role is missing")
}

func TestRules(t *testing.T) {
	got := Rules(t.Context(), rules{}, &user.DefaultInfo{Name: "u"}, "ns")
	if len(got.ResourceRules) != 1 || got.ResourceRules[0].Resources[0] != "u" || got.ResourceRules[0].ResourceNames[0] != "ns" ||
		len(got.NonResourceRules) != 1 || got.NonResourceRules[0].NonResourceURLs[0] != "/healthz" || !got.Incomplete || got.EvaluationError != "a role is missing" {
		t.Errorf("got %+v", got)
	}
	if got := Rules(t.Context(), nil, &user.DefaultInfo{}, "ns"); !got.Incomplete || got.ResourceRules == nil || got.NonResourceRules == nil {
		t.Errorf("without a resolver: %+v, want incomplete and empty lists", got)
	}
}
