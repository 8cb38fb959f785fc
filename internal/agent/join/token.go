package join

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"
	"k8s.io/cluster-bootstrap/util/secrets"
	"k8s.io/cluster-bootstrap/util/tokens"
)

// DefaultGroup is the group of the tokens by which nodes join, kubeadm's.
const DefaultGroup = "system:bootstrappers:kubeadm:default-node-token"

// Token is a bootstrap token.
type Token struct {
	// ID and Secret make up the token, ID.Secret; both are chosen at random where
	// they are empty.
	ID, Secret  string
	Description string
	// Expires is when it ends; never if zero.
	Expires time.Time
	// Usages are of api.KnownTokenUsages, Groups are the groups of a bearer.
	Usages, Groups []string
}

// String returns the token in the form ID.Secret.
func (t *Token) String() string { return bootstraputil.TokenFromIDAndSecret(t.ID, t.Secret) }

// Parse reads a token.
func Parse(s string) (Token, error) {
	id, secret, err := tokens.ParseToken(s)
	if err != nil {
		return Token{}, fmt.Errorf("the bootstrap token %q was not of the form %q", s, api.BootstrapTokenPattern)
	}
	return Token{ID: id, Secret: secret}, nil
}

// Create makes a token in the cluster.
func Create(ctx context.Context, admin kubernetes.Interface, t Token) (Token, error) {
	if t.ID == "" {
		s, err := bootstraputil.GenerateBootstrapToken()
		if err != nil {
			return t, err
		}
		made, err := Parse(s)
		if err != nil {
			return t, err
		}
		t.ID, t.Secret = made.ID, made.Secret
	}
	var errs []error
	if len(t.Usages) == 0 {
		t.Usages = api.KnownTokenUsages
	}
	errs = append(errs, bootstraputil.ValidateUsages(t.Usages))
	for _, g := range t.Groups {
		errs = append(errs, bootstraputil.ValidateBootstrapGroupName(g))
	}
	if err := errors.Join(errs...); err != nil {
		return t, err
	}
	data := map[string]string{api.BootstrapTokenIDKey: t.ID, api.BootstrapTokenSecretKey: t.Secret}
	if t.Description != "" {
		data[api.BootstrapTokenDescriptionKey] = t.Description
	}
	if !t.Expires.IsZero() {
		data[api.BootstrapTokenExpirationKey] = t.Expires.UTC().Format(time.RFC3339)
	}
	for _, u := range t.Usages {
		data[api.BootstrapTokenUsagePrefix+u] = "true"
	}
	if len(t.Groups) > 0 {
		data[api.BootstrapTokenExtraGroupsKey] = strings.Join(t.Groups, ",")
	}
	s := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: bootstraputil.BootstrapTokenSecretName(t.ID)}, Type: api.SecretTypeBootstrapToken, StringData: data}
	if _, err := admin.CoreV1().Secrets(s.Namespace).Create(ctx, s, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		return t, fmt.Errorf("a token with id %q already exists", t.ID)
	} else if err != nil {
		return t, fmt.Errorf("making the token: %w", err)
	}
	return t, nil
}

// List returns the tokens of the cluster, sorted.
func List(ctx context.Context, admin kubernetes.Interface) ([]Token, error) {
	all, err := admin.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(api.SecretTypeBootstrapToken)})
	if err != nil {
		return nil, fmt.Errorf("the bootstrap tokens: %w", err)
	}
	var out []Token
	for i := range all.Items {
		s := &all.Items[i]
		t := Token{ID: secrets.GetData(s, api.BootstrapTokenIDKey), Secret: secrets.GetData(s, api.BootstrapTokenSecretKey), Description: secrets.GetData(s, api.BootstrapTokenDescriptionKey)}
		if t.ID == "" || t.Secret == "" || s.Name != bootstraputil.BootstrapTokenSecretName(t.ID) {
			continue // not a valid token
		}
		if at := secrets.GetData(s, api.BootstrapTokenExpirationKey); at != "" {
			if t.Expires, err = time.Parse(time.RFC3339, at); err != nil {
				continue // an invalid time counts as expired
			}
		}
		for _, key := range slices.Sorted(maps.Keys(s.Data)) {
			if u, is := strings.CutPrefix(key, api.BootstrapTokenUsagePrefix); is && string(s.Data[key]) == "true" {
				t.Usages = append(t.Usages, u)
			}
		}
		if g := secrets.GetData(s, api.BootstrapTokenExtraGroupsKey); g != "" {
			t.Groups = strings.Split(g, ",")
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Token) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// Delete deletes a token; s is the token or its ID.
func Delete(ctx context.Context, admin kubernetes.Interface, s string) (id string, err error) {
	id = s
	if !bootstraputil.IsValidBootstrapTokenID(id) {
		t, err := Parse(s)
		if err != nil {
			return "", fmt.Errorf("given token %q didn't match pattern %q or %q", s, api.BootstrapTokenIDPattern, api.BootstrapTokenPattern)
		}
		id = t.ID
	}
	if err := admin.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, bootstraputil.BootstrapTokenSecretName(id), metav1.DeleteOptions{}); err != nil {
		return id, fmt.Errorf("failed to delete bootstrap token %q: %w", id, err)
	}
	return id, nil
}
