package token

import (
	"encoding/json"
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

// cacheControl lets the answers be kept for an hour.
const cacheControl = "public, max-age=3600"

// Discovery serves both documents. base is the URL of the API server as others
// reach it, for the place of the keys where the selection names none. An issuer that
// is no https URL cannot be discovered: there are no documents then.
func (a *Authority) Discovery(base string) (map[string]http.Handler, error) {
	if u, err := url.Parse(a.Issuers[0]); err != nil || u.Scheme != "https" {
		return map[string]http.Handler{}, nil //nolint:nilerr // an issuer may be any string
	}
	where, set, used := a.JWKSURI, jose.JSONWebKeySet{}, []string{}
	if where == "" {
		where = base + KeysPath
	}
	for _, k := range a.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.key, KeyID: k.id, Algorithm: string(k.algorithm), Use: "sig"})
		if !slices.Contains(used, string(k.algorithm)) {
			used = append(used, string(k.algorithm))
		}
	}
	configuration, err := json.Marshal(map[string]any{
		"issuer": a.Issuers[0], "jwks_uri": where, "response_types_supported": []string{"id_token"},
		"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": used,
	})
	if err != nil {
		return nil, err
	}
	keys, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	serve := func(kind string, b []byte) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				w.Header().Set("Allow", "GET, HEAD")
				http.Error(w, "405: Method Not Allowed", http.StatusMethodNotAllowed)
				return
			}
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cache-Control", cacheControl)
			_, _ = w.Write(b)
		})
	}
	return map[string]http.Handler{ConfigurationPath: serve("application/json", configuration), KeysPath: serve("application/jwk-set+json", keys)}, nil
}
