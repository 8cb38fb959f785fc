package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/client-go/util/keyutil"
)

// Selection holds the flags for tokens, under upstream's names.
type Selection struct {
	// Issuers is --service-account-issuer: the first issues, all are accepted.
	Issuers []string
	// Audiences is --api-audiences; the first issuer, where there are none.
	Audiences []string
	// JWKSURI is --service-account-jwks-uri.
	JWKSURI string
	// SigningKeyFile is --service-account-signing-key-file; KeyFiles, with the keys
	// that tokens are checked by, is --service-account-key-file.
	SigningKeyFile string
	KeyFiles       []string
	// SigningEndpoint is --service-account-signing-endpoint, a Unix socket at which
	// another process signs, in place of the keys above.
	SigningEndpoint string
	// MaxExpiration is --service-account-max-token-expiration; 0 is none.
	MaxExpiration time.Duration
	// NoExtension is --service-account-extend-token-expiration=false.
	NoExtension bool
}

// Validate returns an error for an invalid selection.
func (s *Selection) Validate() error {
	var errs []error
	seen := map[string]bool{}
	for _, issuer := range s.Issuers {
		switch _, err := url.Parse(issuer); {
		case issuer == "":
			errs = append(errs, errors.New("service-account-issuer should not be an empty string"))
		case strings.Contains(issuer, ":") && err != nil:
			errs = append(errs, fmt.Errorf("service-account-issuer %q contained a ':' but was not a valid URL: %w", issuer, err))
		case seen[issuer]:
			errs = append(errs, fmt.Errorf("service-account-issuer %q is already specified", issuer))
		}
		seen[issuer] = true
	}
	if s.JWKSURI != "" {
		if u, err := url.Parse(s.JWKSURI); err != nil {
			errs = append(errs, fmt.Errorf("service-account-jwks-uri must be a valid URL: %w", err))
		} else if u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("service-account-jwks-uri requires https scheme, parsed as: %v", u.String()))
		}
	}
	if s.MaxExpiration != 0 && (s.MaxExpiration < time.Hour || s.MaxExpiration > maxLife) {
		errs = append(errs, errors.New("the service-account-max-token-expiration must be between 1 hour and 2^32 seconds"))
	}
	if s.SigningEndpoint != "" && (s.SigningKeyFile != "" || len(s.KeyFiles) > 0) {
		errs = append(errs, errors.New("can't set `--service-account-signing-key-file` and/or `--service-account-key-file` and `--service-account-signing-endpoint` simultaneously"))
	}
	if s.SigningKeyFile != "" && len(s.KeyFiles) == 0 {
		errs = append(errs, errors.New("service-account-key-file is a required flag: it has the public key of --service-account-signing-key-file, and of earlier ones"))
	}
	return errors.Join(errs...)
}

// publicKey checks tokens.
type publicKey struct {
	key       crypto.PublicKey
	id        string
	algorithm jose.SignatureAlgorithm
	hidden    bool // left out of the discovery documents
}

var algorithms = []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.RS256}

func newPublicKey(key crypto.PublicKey) (publicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return publicKey{}, err
	}
	sum := sha256.Sum256(der)
	k := publicKey{key: key, id: base64.RawURLEncoding.EncodeToString(sum[:])}
	switch key := key.(type) {
	case *rsa.PublicKey:
		k.algorithm = jose.RS256
	case *ecdsa.PublicKey:
		k.algorithm = map[string]jose.SignatureAlgorithm{"P-256": jose.ES256, "P-384": jose.ES384, "P-521": jose.ES512}[key.Curve.Params().Name]
	}
	if k.algorithm == "" {
		return publicKey{}, fmt.Errorf("found a key of type %T: tokens are signed with RSA, or ECDSA on P-256, P-384 or P-521", key)
	}
	return k, nil
}

// keys returns the key to sign with and those to check by, the former's first.
func (s *Selection) keys(own crypto.Signer) (crypto.Signer, []publicKey, error) {
	if s.SigningKeyFile != "" {
		key, err := keyutil.PrivateKeyFromFile(s.SigningKeyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("--service-account-signing-key-file: %w", err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, nil, fmt.Errorf("--service-account-signing-key-file: a key of type %T cannot sign", key)
		}
		own = signer
	}
	first, err := newPublicKey(own.Public())
	if err != nil {
		return nil, nil, err
	}
	all := []publicKey{first}
	for _, file := range s.KeyFiles {
		found, err := keyutil.PublicKeysFromFile(file)
		if err != nil {
			return nil, nil, fmt.Errorf("--service-account-key-file: %w", err)
		}
		for _, f := range found {
			k, err := newPublicKey(f)
			if err != nil {
				return nil, nil, fmt.Errorf("--service-account-key-file: %s: %w", file, err)
			}
			if k.id != first.id {
				all = append(all, k)
			}
		}
	}
	return own, all, nil
}

// verify fills in claims if one of the keys has signed them: the one that the token
// names, else any.
func (a *Authority) verify(ctx context.Context, t *jwt.JSONWebToken, claims ...any) error {
	id := t.Headers[0].KeyID
	if a.external != nil && id != "" {
		if _, ok := a.external.known(id); !ok {
			a.external.look(ctx)
		}
	}
	var err error
	for _, k := range a.publicKeys() {
		if id != "" && id != k.id {
			continue
		}
		if err = t.Claims(k.key, claims...); err == nil {
			return nil
		}
	}
	if err == nil {
		err = errors.New("no key of this server has signed it")
	}
	return err
}

// publicKeys returns the keys that verify tokens.
func (a *Authority) publicKeys() []publicKey {
	if a.external != nil {
		return *a.external.keys.Load()
	}
	return a.keys
}
