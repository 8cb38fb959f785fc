package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"regexp"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/util/secrets"
	"k8s.io/cluster-bootstrap/util/tokens"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Secrets reads secrets as they are now.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
}

// bootstrap takes bootstrap tokens, with which new nodes ask for certificates:
// https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
type bootstrap struct {
	secrets Secrets
	clock   clock.PassiveClock
}

var tokenForm = regexp.MustCompile(bootstrapapi.BootstrapTokenPattern)

// AuthenticateToken implements authenticator.Token.
func (b *bootstrap) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	id, secret, err := tokens.ParseToken(token)
	if err != nil || !tokenForm.MatchString(token) {
		return nil, false, nil //nolint:nilerr // another authenticator's
	}
	s, err := b.secrets.Secret(ctx, metav1.NamespaceSystem, bootstrapapi.BootstrapTokenSecretPrefix+id)
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	log := klog.FromContext(ctx)
	refused := func(why string) (*authenticator.Response, bool, error) {
		log.V(3).Info("Bootstrap token refused", "secret", klog.KObj(s), "reason", why)
		return nil, false, nil
	}
	switch {
	case s.DeletionTimestamp != nil:
		return refused("it is being deleted")
	case string(s.Type) != string(bootstrapapi.SecretTypeBootstrapToken) || s.Data == nil:
		return refused("its type is not " + string(bootstrapapi.SecretTypeBootstrapToken))
	case subtle.ConstantTimeCompare(s.Data[bootstrapapi.BootstrapTokenSecretKey], []byte(secret)) != 1:
		return refused("it has another " + bootstrapapi.BootstrapTokenSecretKey)
	case string(s.Data[bootstrapapi.BootstrapTokenIDKey]) != id:
		return refused("it has another " + bootstrapapi.BootstrapTokenIDKey)
	case secrets.HasExpired(s, b.clock.Now()):
		return refused("it has expired")
	case string(s.Data[bootstrapapi.BootstrapTokenUsageAuthentication]) != "true":
		return refused("it is not marked " + bootstrapapi.BootstrapTokenUsageAuthentication)
	}
	groups, err := secrets.GetGroups(s)
	if err != nil {
		return nil, false, errors.New("bootstrap token: " + err.Error())
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: bootstrapapi.BootstrapUserPrefix + id, Groups: groups}}, true, nil
}
