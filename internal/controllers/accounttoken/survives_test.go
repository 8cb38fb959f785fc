package accounttoken

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that in the end each secret has a token of the account that there
// is now, and those of accounts that have gone have gone.
func TestSurvives(t *testing.T) {
	account := func(name string) *v1.ServiceAccount {
		return &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
	}
	secret := func(name, of string) *v1.Secret {
		return &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Annotations: map[string]string{v1.ServiceAccountNameKey: of}}, Type: v1.SecretTypeServiceAccountToken}
	}
	controllertest.Trial{
		Seeds: 300, Controllers: []controllertest.Constructor{New},
		Context: func(c *controllers.Context) {
			c.RootCA = []byte("pem")
			c.LegacyToken = func(a *v1.ServiceAccount, s *v1.Secret) (string, error) {
				return string(a.UID) + " " + string(s.UID), nil
			}
		},
		World: []controllertest.Object{account("a"), account("c"), secret("a", "a"), secret("c", "c")},
		Actions: []controllertest.Action{
			controllertest.Creates(account("b"), secret("b", "b"), secret("nobody", "nobody")),
			// Another account of the same name, with a secret of its own.
			controllertest.Then(controllertest.Removes[*v1.ServiceAccount]("ns", "a"), controllertest.Creates(account("a"), secret("a2", "a"))),
			controllertest.Removes[*v1.ServiceAccount]("ns", "c"),
		},
		End: func(t *testing.T, c *controllertest.Cluster) {
			controllertest.Are("ns", controllertest.Name[*v1.Secret], "a2", "b")(t, c)
			for _, s := range controllertest.All[*v1.Secret](c, "ns") {
				a, _ := controllertest.Find[*v1.ServiceAccount](c, "ns", s.Annotations[v1.ServiceAccountNameKey])
				if want := fmt.Sprintf("%s %s", a.UID, s.UID); string(s.Data[v1.ServiceAccountTokenKey]) != want || s.Annotations[v1.ServiceAccountUIDKey] != string(a.UID) {
					t.Errorf("secret %s: %v, token %q, want %q", s.Name, s.Annotations, s.Data[v1.ServiceAccountTokenKey], want)
				}
			}
		},
	}.Survives(t)
}
