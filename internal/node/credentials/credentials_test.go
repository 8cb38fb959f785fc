package credentials

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	testingclock "k8s.io/utils/clock/testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, image string
		want           bool
	}{
		{"registry.io", "registry.io/a/b", true},
		{"https://registry.io/v2/", "registry.io/a/b", true},
		{"registry.io:8080", "registry.io/a", false},
		{"registry.io", "registry.io:8080/a", true},
		{"registry.io:8080/a", "registry.io:8080/a/b", true},
		{"registry.io/a", "registry.io/ab", false},
		{"*.registry.io", "eu.registry.io/a", true},
		{"*.registry.io", "a.eu.registry.io/a", false},
		{"*.registry.io", "registry.io/a", false},
		{"app*.registry.io", "app1.registry.io/a", true},
		{"docker.io", "index.docker.io/library/a", true},
		{"https://index.docker.io/v1/", "docker.io/library/a", true},
		{"other.io", "registry.io/a", false},
	} {
		if got := Match(c.pattern, c.image); got != c.want {
			t.Errorf("%s and %s: %v", c.pattern, c.image, got)
		}
	}
}

func TestOrder(t *testing.T) {
	got := []string{"*.io", "registry.io", "registry.io/a/b", "registry.io/a"}
	if Order(got); !slices.Equal(got, []string{"registry.io/a/b", "registry.io/a", "registry.io", "*.io"}) {
		t.Errorf("order %q", got)
	}
}

type tokens struct{}

func (tokens) Token(_ context.Context, p *v1.Pod, _ string, t *v1.ServiceAccountTokenProjection) (string, error) {
	return "token-of-" + p.Spec.ServiceAccountName + "-for-" + t.Audience, nil
}

// script is a plug-in that counts its runs, and returns the account in its request as
// the password.
const script = `#!/bin/sh
echo x >> "$COUNT"
request=$(cat)
token=$(echo "$request" | sed -n 's/.*"serviceAccountToken":"\([^"]*\)".*/\1/p')
echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse","cacheKeyType":"'$KEY'","auth":{"*.registry.io":{"username":"u","password":"glob '$token'"},"eu.registry.io":{"username":"u","password":"host '$token'"},"other.io":{"username":"no"}}}'
`

// providers loads a plug-in with these further lines of configuration.
func providers(t *testing.T, clock *testingclock.FakePassiveClock, key, more string) (*Providers, func() int) {
	t.Helper()
	dir := t.TempDir()
	count := filepath.Join(dir, "count")
	if err := os.WriteFile(filepath.Join(dir, "plugin"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config")
	text := "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: plugin\n  matchImages: ['*.registry.io']\n  defaultCacheDuration: 10m\n" +
		"  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  env: [{name: COUNT, value: " + count + "}, {name: KEY, value: " + key + "}]\n" + more
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(&v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", UID: "1"}}, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "n", UID: "2"}})
	p, err := Load(config, dir, client, tokens{}, clock)
	if err != nil {
		t.Fatal(err)
	}
	return p, func() int {
		b, _ := os.ReadFile(count)
		return strings.Count(string(b), "x")
	}
}

func podOf(account string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"}, Spec: v1.PodSpec{ServiceAccountName: account}}
}

func passwords(t *testing.T, p *Providers, account, image string) (out []string) {
	t.Helper()
	auths, err := p.Auths(t.Context(), podOf(account), image)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range auths {
		out = append(out, strings.TrimSpace(a.Password))
	}
	return out
}

func TestAuths(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Unix(1000, 0))
	p, runs := providers(t, clock, "Registry", "")
	for _, image := range []string{"eu.registry.io/a", "eu.registry.io/b"} {
		if got := passwords(t, p, "a", image); !slices.Equal(got, []string{"host", "glob"}) {
			t.Errorf("%s: %q", image, got)
		}
	}
	if n := runs(); n != 1 {
		t.Errorf("%d runs for a registry", n)
	}
	if got := passwords(t, p, "a", "us.registry.io/a"); !slices.Equal(got, []string{"glob"}) || runs() != 2 {
		t.Errorf("another registry: %q after %d runs", got, runs())
	}
	clock.SetTime(clock.Now().Add(10 * time.Minute))
	if passwords(t, p, "a", "eu.registry.io/a"); runs() != 3 {
		t.Errorf("%d runs after the time of the cache", runs())
	}
	if got := passwords(t, p, "a", "registry.io/a"); len(got) != 0 || runs() != 3 {
		t.Errorf("an image that is not the plug-in's: %q after %d runs", got, runs())
	}
}

// TestAccounts checks that the credentials of one service account are not used
// for another.
func TestAccounts(t *testing.T) {
	p, runs := providers(t, testingclock.NewFakePassiveClock(time.Unix(1000, 0)), "Global",
		"  tokenAttributes: {serviceAccountTokenAudience: registry, requireServiceAccount: true, cacheType: ServiceAccount}\n")
	for range 2 {
		for _, account := range []string{"a", "b"} {
			if got := passwords(t, p, account, "us.registry.io/x"); !slices.Equal(got, []string{"glob token-of-" + account + "-for-registry"}) {
				t.Errorf("%s: %q", account, got)
			}
		}
	}
	if n := runs(); n != 2 {
		t.Errorf("%d runs", n)
	}
	if got := passwords(t, p, "", "us.registry.io/x"); len(got) != 0 {
		t.Errorf("a pod without an account: %q", got)
	}
}

func TestLoadRefuses(t *testing.T) {
	head := "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n"
	for text, want := range map[string]string{
		"kind: Pod\n": "wanted a CredentialProviderConfig",
		head:          "at least one provider",
		head + "providers: [{name: ../x, matchImages: [a], defaultCacheDuration: 1m, apiVersion: credentialprovider.kubelet.k8s.io/v1}]\n": "its name has to be",
		head + "providers: [{name: x, matchImages: [a], defaultCacheDuration: 1m, apiVersion: credentialprovider.kubelet.k8s.io/v1}]\n":    "its program",
		head + "providers: [{name: x, matchImages: [a], defaultCacheDuration: 1m, apiVersion: other}]\n":                                   "wanted credentialprovider.kubelet.k8s.io/v1",
		head + "providers: [{name: x, image: [a]}]\n": "unknown field",
	} {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(file, t.TempDir(), nil, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
