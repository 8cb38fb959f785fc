package legacytoken

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestClean checks that tokens that were not used for a year are marked, and deleted a
// year later.
func TestClean(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name    string
		secret  func(*v1.Secret)
		account func(*v1.ServiceAccount)
		pod     string // the Secret that a pod mounts
		after   time.Duration
		marked  bool
		deleted bool
	}{
		{"not tracked for long", nil, nil, "", 364 * day, false, false},
		{"unused", nil, nil, "", 368 * day, true, false},
		{"unused for two years", nil, nil, "", 736 * day, true, true},
		{"used since", func(s *v1.Secret) { s.Labels = map[string]string{token.LastUsedLabel: "2000-12-24"} }, nil, "", 400 * day, false, false},
		{"used long ago", func(s *v1.Secret) { s.Labels = map[string]string{token.LastUsedLabel: "2000-01-02"} }, nil, "", 400 * day, true, false},
		{"used on a day that is none", func(s *v1.Secret) { s.Labels = map[string]string{token.LastUsedLabel: "today"} }, nil, "", 800 * day, false, false},
		{"mounted", nil, nil, "s", 800 * day, false, false},
		{"made by hand", nil, func(a *v1.ServiceAccount) { a.Secrets = nil }, "", 800 * day, false, false},
		{"of an account before", func(s *v1.Secret) { s.Annotations[v1.ServiceAccountUIDKey] = "other" }, nil, "", 800 * day, false, false},
		{"of another type", func(s *v1.Secret) { s.Type = v1.SecretTypeOpaque }, nil, "", 800 * day, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the bubble's time begins at 2000-01-01
				k := controllertest.New(t, New)
				core, ctx := k.Client.CoreV1(), t.Context()
				controllertest.Must[*v1.ConfigMap](t)(core.ConfigMaps("kube-system").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: token.TrackingConfigMap}, Data: map[string]string{"since": "2000-01-01"}}, metav1.CreateOptions{}))
				a := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "ns"}, Secrets: []v1.ObjectReference{{Name: "s"}}}
				if c.account != nil {
					c.account(a)
				}
				controllertest.Must[*v1.ServiceAccount](t)(core.ServiceAccounts("ns").Create(ctx, a, metav1.CreateOptions{}))
				s := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns", Annotations: map[string]string{v1.ServiceAccountNameKey: "a"}}, Type: v1.SecretTypeServiceAccountToken}
				if c.secret != nil {
					c.secret(s)
				}
				controllertest.Must[*v1.Secret](t)(core.Secrets("ns").Create(ctx, s, metav1.CreateOptions{}))
				if c.pod != "" {
					controllertest.Must[*v1.Pod](t)(core.Pods("ns").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"},
						Spec: v1.PodSpec{Volumes: []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: c.pod}}}}}}, metav1.CreateOptions{}))
				}
				k.Advance(c.after)
				s, err := core.Secrets("ns").Get(ctx, "s", metav1.GetOptions{})
				if c.deleted {
					if !apierrors.IsNotFound(err) {
						t.Fatalf("the Secret is there: %v, %v", s, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, marked := s.Labels[token.InvalidSinceLabel]; marked != c.marked {
					t.Errorf("marked: %v, want %v: %v", marked, c.marked, s.Labels)
				}
			})
		})
	}
}
