package legacytoken

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that in the end unused tokens are marked, those marked a year ago
// gone, and all others left.
func TestSurvives(t *testing.T) {
	old := metav1.NewTime(time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC))
	account := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}}
	secret := func(name string, labels map[string]string) *v1.Secret {
		account.Secrets = append(account.Secrets, v1.ObjectReference{Name: name})
		return &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: labels, CreationTimestamp: old,
			Annotations: map[string]string{v1.ServiceAccountNameKey: "a"}}, Type: v1.SecretTypeServiceAccountToken}
	}
	world := []controllertest.Object{
		&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: token.TrackingConfigMap}, Data: map[string]string{"since": "1990-01-01"}},
		secret("unused", nil), secret("used", map[string]string{token.LastUsedLabel: "1999-12-30"}),
		secret("invalid", map[string]string{token.InvalidSinceLabel: "1995-01-01"}), secret("mounted", nil),
		&v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "p"}},
		&v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: v1.PodSpec{Volumes: []v1.Volume{{Name: "v",
			VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "mounted"}}}}}},
		account,
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New}, World: world, Tick: 12 * time.Hour, Rest: 3 * 24 * time.Hour,
		Actions: []controllertest.Action{
			controllertest.Edits("ns", "used", func(s *v1.Secret) { s.Labels[token.LastUsedLabel] = "2000-01-01" }),
		},
		End: controllertest.Are("ns", func(s *v1.Secret) string {
			if s.Labels[token.InvalidSinceLabel] != "" {
				return s.Name + " marked"
			}
			return s.Name
		}, "unused marked", "used", "mounted"),
	}.Survives(t)
}
