package token

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	jose "github.com/go-jose/go-jose/v4"
)

// The paths at which others learn how to check the cluster's tokens, by OpenID
// Connect Discovery
// (https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery).
const (
	ConfigurationPath = "/.well-known/openid-configuration"
	KeysPath          = "/openid/v1/jwks"
)

// Discovery serves both documents. base returns the URL by which others reach the API
// server now, for the place of the keys where the selection names none. An issuer that
// is no https URL cannot be discovered: there are no documents then.
func (a *Authority) Discovery(base func() string) (map[string]http.Handler, error) {
	if u, err := url.Parse(a.Issuers[0]); err != nil || u.Scheme != "https" {
		return map[string]http.Handler{}, nil //nolint:nilerr // an issuer may be any string
	}
	serve := func(kind string, document func() any) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				w.Header().Set("Allow", "GET, HEAD")
				http.Error(w, "405: Method Not Allowed", http.StatusMethodNotAllowed)
				return
			}
			b, err := json.Marshal(document())
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cache-Control", a.cacheControl())
			_, _ = w.Write(b)
		})
	}
	configuration := func() any {
		used := []string{}
		for _, k := range a.publicKeys() {
			if !k.hidden && !slices.Contains(used, string(k.algorithm)) {
				used = append(used, string(k.algorithm))
			}
		}
		where := a.JWKSURI
		if where == "" {
			where = base() + KeysPath
		}
		return map[string]any{
			"issuer": a.Issuers[0], "jwks_uri": where, "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": used,
		}
	}
	keys := func() any {
		set := jose.JSONWebKeySet{}
		for _, k := range a.publicKeys() {
			if !k.hidden {
				set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.key, KeyID: k.id, Algorithm: string(k.algorithm), Use: "sig"})
			}
		}
		return set
	}
	return map[string]http.Handler{ConfigurationPath: serve("application/json", configuration), KeysPath: serve("application/jwk-set+json", keys)}, nil
}

// cacheControl lets the answers be kept for an hour, or for as long as an external
// signer's keys are.
func (a *Authority) cacheControl() string {
	seconds := int64(3600)
	if a.external != nil {
		seconds = a.external.refresh.Load()
	}
	return fmt.Sprintf("public, max-age=%d", seconds)
}
