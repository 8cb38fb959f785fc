package review

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Token fills in the status of o by what by says of the token.
func Token(ctx context.Context, by authenticator.Token, o *authenticationv1.TokenReview) {
	if len(o.Spec.Audiences) > 0 {
		ctx = authenticator.WithAudiences(ctx, o.Spec.Audiences)
	}
	resp, ok, err := by.AuthenticateToken(ctx, o.Spec.Token)
	o.Status.Authenticated = ok && err == nil
	if err != nil {
		o.Status.Error = err.Error()
	}
	if o.Status.Authenticated {
		o.Status.User = UserInfo(resp.User)
		o.Status.Audiences = resp.Audiences
	}
}

// UserInfo is u as reviews show it.
func UserInfo(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}
