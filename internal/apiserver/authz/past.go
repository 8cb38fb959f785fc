package authz

import (
	"context"
	"strconv"

	"k8s.io/apiserver/pkg/authorization/authorizer"
)

type sinceKey struct{}

// Since returns a context in which authorizers allow what has been allowed without a
// break since a revision of the store: what a user may read of the state at that
// revision. The rights of now alone would open more: who is given a namespace could read
// what its former tenant has deleted, and who is given an object what was taken out of it.
//
// RBAC counts the roles and bindings that have not been changed since. Nodes may read
// what their pods need, which the past is not, and a webhook knows only what is allowed
// now: neither allows anything of the past.
func Since(ctx context.Context, revision int64) context.Context {
	return context.WithValue(ctx, sinceKey{}, revision)
}

// sinceFrom returns the revision of Since; 0 is now.
func sinceFrom(ctx context.Context) int64 {
	revision, _ := ctx.Value(sinceKey{}).(int64)
	return revision
}

// unchanged reports whether an object of this version was there at the revision since.
func unchanged(version string, since int64) bool {
	if since == 0 {
		return true
	}
	n, err := strconv.ParseInt(version, 10, 64)
	return err == nil && n <= since
}

// resolving is an authorizer that can list a user's rights.
type resolving interface {
	authorizer.Authorizer
	authorizer.RuleResolver
}

// ofNow is an authorizer that does not know since when something is allowed.
type ofNow struct{ resolving }

// Authorize implements authorizer.Authorizer.
func (o ofNow) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	d, reason, err := o.resolving.Authorize(ctx, a)
	if d == authorizer.DecisionAllow && sinceFrom(ctx) != 0 {
		return authorizer.DecisionNoOpinion, "", err
	}
	return d, reason, err
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (o ofNow) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	if sinceFrom(ctx) != 0 {
		return authorizer.ConditionsAwareDecisionFromParts(o.Authorize(ctx, a))
	}
	return o.resolving.ConditionsAwareAuthorize(ctx, a)
}
