package review

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	operators "k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// Access returns the decision of by, which allows everything if it is nil, on what
// u asks for: ra, or other if that is nil.
func Access(ctx context.Context, by authorizer.Authorizer, u user.Info, ra *authorizationv1.ResourceAttributes, other *authorizationv1.NonResourceAttributes) (status authorizationv1.SubjectAccessReviewStatus) {
	a := authorizer.AttributesRecord{User: u}
	if ra != nil {
		a.Verb, a.Namespace, a.APIGroup, a.APIVersion = ra.Verb, ra.Namespace, ra.Group, cmp.Or(ra.Version, "*")
		a.Resource, a.Subresource, a.Name, a.ResourceRequest = ra.Resource, ra.Subresource, ra.Name, true
		a.FieldSelectorRequirements, a.FieldSelectorParsingErr = fieldRequirements(ra.FieldSelector)
		a.LabelSelectorRequirements, a.LabelSelectorParsingErr = labelRequirements(ra.LabelSelector)
	} else {
		a.Verb, a.Path = other.Verb, other.Path
	}
	if by == nil {
		status.Allowed = true
		return status
	}
	decision, reason, err := by.Authorize(ctx, a)
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

// Subject returns the user that a review is about.
func Subject(s *authorizationv1.SubjectAccessReviewSpec) user.Info {
	extra := map[string][]string{}
	for k, v := range s.Extra {
		extra[k] = v
	}
	return &user.DefaultInfo{Name: s.User, UID: s.UID, Groups: s.Groups, Extra: extra}
}

// Rules lists what u may do in the namespace, as from has it; nothing is known where
// from is nil.
func Rules(ctx context.Context, from authorizer.RuleResolver, u user.Info, namespace string) authorizationv1.SubjectRulesReviewStatus {
	out := authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	if from == nil {
		out.Incomplete = true
		return out
	}
	rules, nonResource, incomplete, err := from.RulesFor(request.WithNamespace(ctx, namespace), u, namespace)
	out.Incomplete = incomplete
	if err != nil {
		out.EvaluationError = err.Error()
	}
	for _, x := range rules {
		out.ResourceRules = append(out.ResourceRules, authorizationv1.ResourceRule{Verbs: x.GetVerbs(), APIGroups: x.GetAPIGroups(), Resources: x.GetResources(), ResourceNames: x.GetResourceNames()})
	}
	for _, x := range nonResource {
		out.NonResourceRules = append(out.NonResourceRules, authorizationv1.NonResourceRule{Verbs: x.GetVerbs(), NonResourceURLs: x.GetNonResourceURLs()})
	}
	return out
}

// fieldRequirements returns the requirements that a review has on the fields of
// a request. Operators of later versions are left out: the request is then taken
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
