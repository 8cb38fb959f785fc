package pullrecord

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestRecords checks whose credentials have to be verified, and whose are enough, for a
// node that starts again in between.
func TestRecords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "records")
	start := func(policy string, allowed ...string) *Records {
		t.Helper()
		r, err := New(policy, allowed, file)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := start("")
	is := func(what string, got, want bool) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	const image, repository = "r.example.com/a:1", "r.example.com/a"
	one := Credential{Username: "u", Password: "p", Namespace: "n", Name: "s", UID: "1"}
	is("preloaded", r.Verifies(image, "id", repository), false)
	is("preloaded, always", start(AlwaysVerify).Verifies(image, "id", repository), true)
	is("preloaded, not in the list", start(NeverVerifyAllowlistedImages, "r.example.com").Verifies(image, "id", repository), true)
	is("preloaded, in the list", start(NeverVerifyAllowlistedImages, "r.example.com/*").Verifies(image, "id", repository), false)
	if err := r.Begin(image); err != nil {
		t.Fatal(err)
	}
	r = start("")
	is("pulled by an agent that died", r.Verifies(image, "id", repository), true)
	if err := errors.Join(r.Begin(image), r.Failed(image)); err != nil {
		t.Fatal(err)
	}
	is("pulled by an agent that died, and in vain by this one", r.Verifies(image, "id", repository), true)
	if err := errors.Join(r.Begin("other"), r.Failed("other")); err != nil {
		t.Fatal(err)
	}
	is("preloaded, and pulled in vain", r.Verifies("other", "other", "other"), false)
	if err := r.Pulled(image, "id", repository, &one); err != nil {
		t.Fatal(err)
	}
	r = start("")
	is("pulled by a secret", r.Verifies(image, "id", repository), true)
	is("pulled, never verified", start(NeverVerify).Verifies(image, "id", repository), false)
	is("of another repository", r.Verifies("r.example.com/b:1", "id", "r.example.com/b"), true)
	for what, c := range map[string]struct {
		by   []Credential
		want bool
	}{
		"without credentials":                 {nil, false},
		"by the same secret":                  {[]Credential{one}, true},
		"by the secret, with another content": {[]Credential{{Username: "u", Password: "new", Namespace: "n", Name: "s", UID: "1"}}, true},
		"by the same content elsewhere":       {[]Credential{{}, {Username: "u", Password: "p", Namespace: "m", Name: "t", UID: "2"}}, true},
		"by another secret":                   {[]Credential{{Username: "u", Password: "x", Namespace: "n", Name: "s", UID: "3"}}, false},
	} {
		r, err := New("", nil, file)
		if err != nil {
			t.Fatal(err)
		}
		is(what, r.Allowed(image, "id", repository, c.by), c.want)
	}
	if err := r.Pulled(image, "id", repository, nil); err != nil {
		t.Fatal(err)
	}
	is("pulled by nobody in particular", r.Verifies(image, "id", repository), false)
	if err := r.Keep(func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	is("loaded again", start("").Verifies(image, "id", repository), false)
	if _, err := New("x", nil, file); err == nil {
		t.Error("a policy that there is not")
	}
}
