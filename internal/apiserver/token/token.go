package token

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/clock"
)

// Issuer is the cluster's own, upstream's default.
const Issuer = "https://kubernetes.default.svc.cluster.local"

const (
	maxLife = 1 << 32 * time.Second
	// warnAfter is upstream's: kubelets ask for 3607 seconds and get a token
	// that lives a year, which it warns about after that time.
	boundLife = 3607 * time.Second
)

// Getter reads the objects that tokens are about, as they are now.
type Getter interface {
	ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error)
	Pod(ctx context.Context, namespace, name string) (*v1.Pod, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	Node(ctx context.Context, name string) (*v1.Node, error)
}

// Authority issues and checks tokens.
type Authority struct {
	Selection
	keys     []publicKey
	signer   jose.Signer
	external *external // nil if this process signs
	get      Getter
	clock    clock.PassiveClock
	tracker  atomic.Pointer[tracker] // nil until Track is called
}

// New makes an authority, which signs with key where the selection names no other.
func New(key crypto.Signer, s Selection, get Getter, c clock.PassiveClock) (*Authority, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if len(s.Issuers) == 0 {
		s.Issuers = []string{Issuer}
	}
	if len(s.Audiences) == 0 {
		s.Audiences = s.Issuers[:1]
	}
	if s.SigningEndpoint != "" {
		e, err := newExternal(s.SigningEndpoint, c)
		if err != nil {
			return nil, err
		}
		if s.MaxExpiration > e.maxLife {
			return nil, errors.Join(fmt.Errorf("service-account-max-token-expiration cannot be set longer than the token expiration supported by service-account-signing-endpoint: %s > %s", s.MaxExpiration, e.maxLife), e.conn.Close())
		}
		if s.MaxExpiration == 0 {
			s.MaxExpiration = e.maxLife
		}
		return &Authority{Selection: s, external: e, get: get, clock: c}, nil
	}
	own, keys, err := s.keys(key)
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: keys[0].algorithm, Key: jose.JSONWebKey{Key: own, KeyID: keys[0].id, Algorithm: string(keys[0].algorithm)}}, nil)
	if err != nil {
		return nil, err
	}
	return &Authority{Selection: s, keys: keys, signer: signer, get: get, clock: c}, nil
}

type ref struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

type kubernetes struct {
	Namespace string           `json:"namespace,omitempty"`
	Svcacct   ref              `json:"serviceaccount,omitempty"`
	Pod       *ref             `json:"pod,omitempty"`
	Secret    *ref             `json:"secret,omitempty"`
	Node      *ref             `json:"node,omitempty"`
	WarnAfter *jwt.NumericDate `json:"warnafter,omitempty"`
}

// claims have their audiences as a list, where there is one of them too.
type claims struct {
	jwt.Claims
	Audience []string `json:"aud"`
}

type private struct {
	Kubernetes kubernetes `json:"kubernetes.io"`
}

// Request issues the token that tr, which is complete and valid, asks for, and
// fills in its status. KEP-1205.
func (a *Authority) Request(ctx context.Context, sa *v1.ServiceAccount, tr *authenticationv1.TokenRequest) error {
	now := a.clock.Now()
	p := private{kubernetes{Namespace: sa.Namespace, Svcacct: ref{sa.Name, string(sa.UID)}}}
	if r := tr.Spec.BoundObjectRef; r != nil {
		if err := a.bind(ctx, sa, r, &p.Kubernetes); err != nil {
			return err
		}
	}
	if most := int64(a.MaxExpiration / time.Second); most > 0 && *tr.Spec.ExpirationSeconds > most {
		warning.AddWarning(ctx, "", fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", *tr.Spec.ExpirationSeconds, most))
		tr.Spec.ExpirationSeconds = &most
	}
	life := time.Duration(*tr.Spec.ExpirationSeconds) * time.Second
	expires := now.Add(life)
	if !a.NoExtension && life == boundLife && p.Kubernetes.Pod != nil && slices.Equal(tr.Spec.Audiences, a.Selection.Audiences) {
		p.Kubernetes.WarnAfter = jwt.NewNumericDate(expires)
		expires = now.Add(a.extended())
	}
	claims := claims{Audience: tr.Spec.Audiences, Claims: jwt.Claims{
		Issuer: a.Issuers[0], Subject: serviceaccount.MakeUsername(sa.Namespace, sa.Name),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires), ID: string(uuid.NewUUID()),
	}}
	signed, err := a.sign(ctx, claims, p)
	if err != nil {
		return err
	}
	audit.AddAuditAnnotation(ctx, serviceaccount.IssuedCredentialIDAuditAnnotationKey, credentialID(claims.ID))
	tr.Status = authenticationv1.TokenRequestStatus{Token: signed, ExpirationTimestamp: metav1.Time{Time: now.Add(life).UTC().Truncate(time.Second)}}
	return nil
}

// year is how long tokens of pods live that ask for boundLife.
const year = 365 * 24 * time.Hour

func (a *Authority) extended() time.Duration {
	if a.external != nil {
		return min(year, a.external.maxLife)
	}
	return year
}

func (a *Authority) sign(ctx context.Context, c claims, p private) (string, error) {
	if a.external == nil {
		return jwt.Signed(a.signer).Claims(c).Claims(p).Serialize()
	}
	payload, err := json.Marshal(struct {
		claims
		private
	}{c, p})
	if err != nil {
		return "", err
	}
	return a.external.sign(ctx, payload)
}

// Run keeps the keys of an external signer up to date until ctx is done.
func (a *Authority) Run(ctx context.Context) {
	if a.external != nil {
		a.external.run(ctx)
	}
}

// credentialID returns the name of a token in audit records and in the user's
// extra.
func credentialID(jti string) string { return "JTI=" + jti }

// bind checks the object that a token is to die with.
func (a *Authority) bind(ctx context.Context, sa *v1.ServiceAccount, r *authenticationv1.BoundObjectReference, k *kubernetes) error {
	var uid types.UID
	gvk := schema.FromAPIVersionAndKind(r.APIVersion, r.Kind)
	switch {
	case gvk.Group == "" && gvk.Kind == "Pod":
		pod, err := a.get.Pod(ctx, sa.Namespace, r.Name)
		if err != nil {
			return err
		}
		if pod.Spec.ServiceAccountName != sa.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", sa.Name))
		}
		uid = pod.UID
		k.Pod = &ref{pod.Name, string(pod.UID)}
		if pod.Spec.NodeName != "" {
			k.Node = &ref{Name: pod.Spec.NodeName}
			if n, err := a.get.Node(ctx, pod.Spec.NodeName); err == nil {
				k.Node.UID = string(n.UID)
			}
		}
	case gvk.Group == "" && gvk.Kind == "Node":
		n, err := a.get.Node(ctx, r.Name)
		if err != nil {
			return err
		}
		uid = n.UID
		k.Node = &ref{n.Name, string(n.UID)}
	case gvk.Group == "" && gvk.Kind == "Secret":
		s, err := a.get.Secret(ctx, sa.Namespace, r.Name)
		if err != nil {
			return err
		}
		uid = s.UID
		k.Secret = &ref{s.Name, string(s.UID)}
	case gvk.GroupVersion() == admissionregistrationv1.SchemeGroupVersion && (gvk.Kind == "ValidatingWebhookConfiguration" || gvk.Kind == "MutatingWebhookConfiguration"):
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s (feature gate APIServerWebhookAuthenticationToken is disabled)", gvk.String()))
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk.String()))
	}
	if r.UID != "" && r.UID != uid {
		return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, r.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", r.UID))
	}
	return nil
}

// legacyIssuer issues the tokens that are in secrets.
const legacyIssuer = "kubernetes/serviceaccount"

// legacy are the claims of such a token, which has no end but its secret's.
type legacy struct {
	Namespace  string `json:"kubernetes.io/serviceaccount/namespace,omitempty"`
	Secret     string `json:"kubernetes.io/serviceaccount/secret.name,omitempty"`
	Account    string `json:"kubernetes.io/serviceaccount/service-account.name,omitempty"`
	AccountUID string `json:"kubernetes.io/serviceaccount/service-account.uid,omitempty"`
}

// Legacy returns the token that is in secret, of type
// kubernetes.io/service-account-token, for an account.
func (a *Authority) Legacy(account *v1.ServiceAccount, secret *v1.Secret) (string, error) {
	if a.external != nil {
		return "", errors.New("an external signer signs no tokens that are in secrets: request one (kubectl create token)")
	}
	claims := jwt.Claims{Issuer: legacyIssuer, Subject: serviceaccount.MakeUsername(account.Namespace, account.Name)}
	return jwt.Signed(a.signer).Claims(claims).Claims(legacy{account.Namespace, secret.Name, account.Name, string(account.UID)}).Serialize()
}

// reviewLegacy checks a token that is in a secret.
func (a *Authority) reviewLegacy(ctx context.Context, token, subject string, l legacy, audiences []string) (user.Info, []string, bool, error) {
	invalid := errors.New("service account token has been invalidated")
	if subject != serviceaccount.MakeUsername(l.Namespace, l.Account) {
		return nil, nil, false, errors.New("sub claim is invalid")
	}
	s, err := a.get.Secret(ctx, l.Namespace, l.Secret)
	if err != nil || s.DeletionTimestamp != nil || string(s.Data[v1.ServiceAccountTokenKey]) != token {
		return nil, nil, false, invalid
	}
	sa, err := a.get.ServiceAccount(ctx, l.Namespace, l.Account)
	if err != nil || sa.DeletionTimestamp != nil || string(sa.UID) != l.AccountUID {
		return nil, nil, false, invalid
	}
	if err := a.track(ctx, s, sa); err != nil {
		return nil, nil, false, err
	}
	// It names no audience: it is for the API server.
	var matched []string
	for _, want := range audiences {
		if slices.Contains(a.Selection.Audiences, want) {
			matched = append(matched, want)
		}
	}
	if len(matched) == 0 {
		return nil, nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", a.Selection.Audiences, audiences)
	}
	return serviceaccount.UserInfo(l.Namespace, l.Account, l.AccountUID), matched, true, nil
}

// Audiences returns the audiences of the API server itself.
func (a *Authority) Audiences() []string { return a.Selection.Audiences }

// Review implements the check of a token for any of audiences (the server's
// own if empty). ok is false for what is not one of this authority's tokens.
func (a *Authority) Review(ctx context.Context, token string, audiences []string) (user.Info, []string, bool, error) {
	if strings.Count(token, ".") != 2 {
		return nil, nil, false, nil
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return nil, nil, false, nil //nolint:nilerr // another authority's
	}
	var claims jwt.Claims
	var p private
	var l legacy
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil || claims.Issuer != legacyIssuer && !slices.Contains(a.Issuers, claims.Issuer) {
		return nil, nil, false, nil //nolint:nilerr // another authority's
	}
	if err := a.verify(ctx, parsed, &claims, &p, &l); err != nil {
		return nil, nil, false, errors.New("invalid bearer token: " + err.Error())
	}
	if len(audiences) == 0 {
		audiences = a.Selection.Audiences
	}
	if claims.Issuer == legacyIssuer {
		return a.reviewLegacy(ctx, token, claims.Subject, l, audiences)
	}
	now := a.clock.Now()
	switch err := claims.ValidateWithLeeway(jwt.Expected{Time: now}, 0); {
	case errors.Is(err, jwt.ErrExpired):
		return nil, nil, false, errors.New("service account token has expired")
	case err != nil:
		return nil, nil, false, fmt.Errorf("service account token is not valid: %w", err)
	}
	var matched []string
	for _, want := range audiences {
		if claims.Audience.Contains(want) {
			matched = append(matched, want)
		}
	}
	if len(matched) == 0 {
		return nil, nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", claims.Audience, audiences)
	}
	k := p.Kubernetes
	gone := func(t *metav1.Time) bool { return t != nil && now.After(t.Add(60*time.Second)) }
	sa, err := a.get.ServiceAccount(ctx, k.Namespace, k.Svcacct.Name)
	if err != nil {
		return nil, nil, false, err
	}
	if string(sa.UID) != k.Svcacct.UID || gone(sa.DeletionTimestamp) {
		return nil, nil, false, fmt.Errorf("service account UID (%s) does not match claim (%s)", sa.UID, k.Svcacct.UID)
	}
	info := &serviceaccount.ServiceAccountInfo{Namespace: k.Namespace, Name: k.Svcacct.Name, UID: k.Svcacct.UID}
	if claims.ID != "" {
		info.CredentialID = credentialID(claims.ID)
	}
	if k.Pod != nil {
		pod, err := a.get.Pod(ctx, k.Namespace, k.Pod.Name)
		if err != nil || string(pod.UID) != k.Pod.UID || gone(pod.DeletionTimestamp) {
			return nil, nil, false, errors.New("service account token has been invalidated")
		}
		info.PodName, info.PodUID = k.Pod.Name, k.Pod.UID
	}
	if k.Secret != nil {
		s, err := a.get.Secret(ctx, k.Namespace, k.Secret.Name)
		if err != nil || string(s.UID) != k.Secret.UID {
			return nil, nil, false, errors.New("service account token has been invalidated")
		}
	}
	if k.Node != nil {
		if k.Pod == nil {
			n, err := a.get.Node(ctx, k.Node.Name)
			if err != nil || string(n.UID) != k.Node.UID {
				return nil, nil, false, errors.New("service account token has been invalidated")
			}
		}
		info.NodeName, info.NodeUID = k.Node.Name, k.Node.UID
	}
	return info.UserInfo(), matched, true, nil
}
