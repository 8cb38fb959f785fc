package controlplane

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"keelson.dev/keelson/internal/apiserver/authn"
	"keelson.dev/keelson/internal/apiserver/priority"
)

// BenchmarkFairness measures a request that waits for its turn, beside one that is
// answered at once.
func BenchmarkFairness(b *testing.B) {
	const path = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"
	for name, off := range map[string]bool{"On": false, "Off": true} {
		tokens := filepath.Join(b.TempDir(), "tokens.csv")
		if err := os.WriteFile(tokens, []byte("secret,someone,u1\n"), 0o600); err != nil {
			b.Fatal(err)
		}
		c := boot(b, Options{Authentication: authn.Selection{TokenFile: tokens}, NoDrain: true, Fairness: priority.Selection{Off: off}})
		ask(c, "POST", "/api/v1/namespaces/default/configmaps", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kube-root-ca.crt"}}`)
		ask(c, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"someone"},
			"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"someone"}]}`)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				req := httptest.NewRequest("GET", path, nil)
				req.Header.Set("Authorization", "Bearer secret")
				w := httptest.NewRecorder()
				c.Server.ServeHTTP(w, req)
				if w.Code != http.StatusOK {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
			}
		})
	}
}
