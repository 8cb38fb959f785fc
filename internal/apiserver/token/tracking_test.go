package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	testingclock "k8s.io/utils/clock/testing"
)

// kept is a Getter of an account and the Secret with its token, as the server has it.
type kept struct {
	objects
	client *fake.Clientset
}

// Secret implements Getter.
func (k *kept) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	return k.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

// TestTracking writes on a Secret when its token was used, and refuses one that was
// marked invalid until the mark is taken away.
func TestTracking(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sa := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "ns", UID: "u"}}
	client := fake.NewClientset()
	clk := testingclock.NewFakePassiveClock(time.Date(2026, 11, 29, 23, 0, 0, 0, time.UTC))
	a, err := New(key, Selection{Issuers: []string{Issuer}, Audiences: []string{Issuer}}, &kept{objects{sa: sa}, client}, clk)
	if err != nil {
		t.Fatal(err)
	}
	secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns"}, Type: v1.SecretTypeServiceAccountToken}
	signed, err := a.Legacy(sa, secret)
	if err != nil {
		t.Fatal(err)
	}
	secret.Data = map[string][]byte{v1.ServiceAccountTokenKey: []byte(signed)}
	secrets := client.CoreV1().Secrets("ns")
	if _, err := secrets.Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	a.Track(t.Context(), client)
	c, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(t.Context(), TrackingConfigMap, metav1.GetOptions{})
	if err != nil || c.Data["since"] != "2026-11-29" {
		t.Fatalf("the ConfigMap is %v, %v", c, err)
	}
	for _, step := range []struct {
		name, invalid, refusal string
	}{
		{"used", "", ""},
		{"marked invalid", "2026-11-29", `the token in secret ns/s for service account ns/a has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the 'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow use of this token`},
		{"a mark that is no date", "no", ""},
		{"the mark taken away", "", ""},
	} {
		clk.SetTime(clk.Now().Add(24 * time.Hour))
		s, err := secrets.Get(t.Context(), "s", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if step.invalid == "" {
			delete(s.Labels, InvalidSinceLabel)
		} else {
			s.Labels[InvalidSinceLabel] = step.invalid
		}
		if _, err := secrets.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		_, _, ok, err := a.Review(t.Context(), signed, nil)
		if step.refusal == "" && (err != nil || !ok) || step.refusal != "" && (err == nil || !strings.HasSuffix(err.Error(), step.refusal)) {
			t.Errorf("%s: %v, %v", step.name, ok, err)
		}
		if s, err = secrets.Get(t.Context(), "s", metav1.GetOptions{}); err != nil || s.Labels[LastUsedLabel] != clk.Now().Format(time.DateOnly) {
			t.Errorf("%s: last used on %q (%v), want %s", step.name, s.Labels[LastUsedLabel], err, clk.Now().Format(time.DateOnly))
		}
	}
}
