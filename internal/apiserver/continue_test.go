package apiserver

import (
	"strings"
	"testing"
)

// FuzzContinue checks that an arbitrary continue token is refused, or is a place
// below the resource.
func FuzzContinue(f *testing.F) {
	f.Add(continueToken{Revision: 7, Start: "ns/name"}.String())
	f.Add(continueToken{Revision: inconsistent, Start: "ns/name\x00"}.String())
	f.Add("")
	f.Add("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIuLi9hIn0")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := parseContinue(s)
		if err != nil {
			return
		}
		if token.Revision == 0 || token.Start == "" || strings.Contains(token.Start, "..") {
			t.Errorf("%q is %+v", s, token)
		}
		if again, err := parseContinue(token.String()); err != nil || again != token {
			t.Errorf("%+v is given out as %+v, %v", token, again, err)
		}
	})
}
