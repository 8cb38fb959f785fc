package apiserver

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// TestWarnings checks that warnings that are too long or too many are cut, as
// upstream cuts them.
func TestWarnings(t *testing.T) {
	long := strings.Repeat("ö", 3000)
	for _, c := range []struct {
		name  string
		texts []string
		want  []string
	}{
		{"what fits is whole", []string{"a", long, "a", ""}, []string{"a", long}},
		{"of what does not, each is cut", []string{"a", long, "b" + long, "c"}, []string{"a", long[:512], "b" + long[:510], "c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, h := &warnings{}, http.Header{}
			for _, text := range c.texts {
				w.AddWarning("", text)
			}
			w.write(h)
			if got := h["Warning"]; len(got) != len(c.want) {
				t.Fatalf("%d headers, want %d", len(got), len(c.want))
			}
			for i, want := range c.want {
				if got := h["Warning"][i]; got != `299 - "`+want+`"` {
					t.Errorf("%q, want %q", got, want)
				}
			}
		})
	}
	w, h := &warnings{}, http.Header{}
	for i := range 1000 {
		w.AddWarning("", strings.Repeat("x", i))
	}
	w.write(h)
	total := 0
	for _, l := range h["Warning"] {
		total += len(l) - len(`299 - ""`)
	}
	if total < mostWarned || total >= mostWarned+mostOfOne {
		t.Errorf("%d characters of warnings", total)
	}
}

// TestAccepts checks that the cache of Accept headers is bounded.
func TestAccepts(t *testing.T) {
	for i := range 2 * maxAccepts {
		if got := accepts("application/json;q=0.5, text/x-" + strconv.Itoa(i)); len(got) != 2 || got[1].mediaType != typeJSON {
			t.Fatalf("%+v", got)
		}
	}
	n := 0
	acceptCache.Range(func(any, any) bool { n++; return true })
	if n == 0 || n > maxAccepts {
		t.Errorf("%d headers are kept", n)
	}
}
