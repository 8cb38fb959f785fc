package bootstraptoken

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cluster-bootstrap/token/api"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func tokenSecret(id string, change func(map[string][]byte)) *v1.Secret {
	s := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: api.BootstrapTokenSecretPrefix + id}, Type: api.SecretTypeBootstrapToken,
		Data: map[string][]byte{api.BootstrapTokenIDKey: []byte(id), api.BootstrapTokenSecretKey: []byte("0123456789abcdef"), api.BootstrapTokenUsageSigningKey: []byte("true")}}
	if change != nil {
		change(s.Data)
	}
	return s
}

// TestSurvives checks that in the end the ConfigMap has the signatures of the tokens that
// there are, and expired tokens are gone.
func TestSurvives(t *testing.T) {
	expires := func(d map[string][]byte) {
		d[api.BootstrapTokenExpirationKey] = []byte(time.Date(2000, 1, 1, 0, 5, 0, 0, time.UTC).Format(time.RFC3339))
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{NewSigner, NewCleaner},
		World: []controllertest.Object{
			tokenSecret("aaaaaa", nil), tokenSecret("bbbbbb", expires),
			&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespacePublic, Name: api.ConfigMapClusterInfo},
				Data: map[string]string{api.KubeConfigKey: "one", api.JWSSignatureKeyPrefix + "forged": "x"}},
		},
		Actions: []controllertest.Action{
			controllertest.Creates(tokenSecret("cccccc", nil), tokenSecret("dddddd", func(d map[string][]byte) { delete(d, api.BootstrapTokenUsageSigningKey) })),
			controllertest.Edits(metav1.NamespacePublic, api.ConfigMapClusterInfo, func(m *v1.ConfigMap) { m.Data[api.KubeConfigKey] = "two" }),
			controllertest.Removes[*v1.Secret](metav1.NamespaceSystem, api.BootstrapTokenSecretPrefix+"aaaaaa"),
		},
		End: controllertest.Facts(
			controllertest.Are(metav1.NamespaceSystem, controllertest.Name[*v1.Secret], "bootstrap-token-cccccc", "bootstrap-token-dddddd"),
			controllertest.Are(metav1.NamespacePublic, func(m *v1.ConfigMap) string {
				return strings.Join(slices.Sorted(maps.Keys(m.Data)), " ")
			}, "jws-kubeconfig-cccccc kubeconfig"),
		),
	}.Survives(t)
}
