package apiserver

import (
	"fmt"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
)

// laughs returns a document in which each level refers ten times to the level
// before it.
func laughs(levels int) string {
	s := "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol,lol]\n"
	for i := 1; i < levels; i++ {
		s += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return s
}

func TestBoundYAML(t *testing.T) {
	long := strings.Repeat("x", 500_000)
	for _, c := range []struct {
		name, doc, want string
	}{
		{"no aliases", "a: b\n", ""},
		{"no aliases, though they look so", "a: 'b & c * d'\n", ""},
		{"an alias", "a: &a b\nc: *a\n", ""},
		{"a merge", "a: &a {b: c}\nd:\n  <<: *a\n", ""},
		{"an anchor that is used again", "a: &a b\nc: *a\nd: &a e\nf: *a\n", ""},
		{"a long string, five times", "a: &a " + long + "\nb: [" + strings.Repeat("*a,", 4) + "]\n", ""},
		{"a long string, seven times", "a: &a " + long + "\nb: [" + strings.Repeat("*a,", 6) + "]\n", "limit is 3145728"},
		{"a long string, two thousand times", "a: &a " + long + "\nb: [" + strings.Repeat("*a,", 2000) + "]\n", "limit is 3145728"},
		{"a long key", "? &a " + long + "\n: b\nc: [" + strings.Repeat("{*a : b},", 10) + "]\n", "limit is 3145728"},
		{"merges", "a: &a {b: " + long + "}\nc: [" + strings.Repeat("{<<: *a},", 10) + "]\n", "limit is 3145728"},
		{"some laughs", laughs(4), ""},
		{"a million laughs", laughs(6), "limit is 3145728"},
		{"all laughs there are", laughs(60), "limit is 3145728"},
		{"an endless one", "a: &a [*a]\n", "anchor 'a' value contains itself"},
		{"an endless one, in two", "a: &a {b: &b [*a]}\nc: *b\n", "anchor 'a' value contains itself"},
		{"no such anchor", "a: &a b\nc: *d\n", "unknown anchor 'd' referenced"},
	} {
		if err := boundYAML([]byte(c.doc)); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestYAMLBomb checks that no request body is expanded into gigabytes, whatever verb
// and media type it has.
func TestYAMLBomb(t *testing.T) {
	s := as(t, &user.DefaultInfo{Name: "jane"}, nil, nil)
	bomb := "x: &x " + strings.Repeat("x", 500_000) + "\ny: [" + strings.Repeat("*x,", 2000) + "]\n"
	deep := strings.Repeat("[", 1_000_000)
	const configMaps, reviews = "/api/v1/namespaces/a/configmaps", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	for _, c := range []struct{ method, path, contentType, body string }{
		{"POST", configMaps, "application/yaml", bomb},
		{"POST", reviews, "application/yaml", bomb},
		{"PUT", configMaps + "/x", "application/yaml", bomb},
		{"PATCH", configMaps + "/x?fieldManager=m", "application/apply-patch+yaml", bomb},
		{"PATCH", configMaps + "/x?fieldManager=m&fieldValidation=Strict", "application/apply-patch+yaml", bomb},
		{"DELETE", configMaps + "/x", "application/yaml", bomb},
		{"DELETE", configMaps + "/x", "application/json", bomb},
		{"DELETE", configMaps, "application/yaml", bomb},
		{"POST", configMaps, "application/json", `{"metadata":` + deep},
		{"POST", configMaps, "application/json", strings.Repeat(`{"metadata":`, 250_000)},
		{"POST", configMaps, "application/yaml", "metadata: " + deep},
		{"POST", configMaps, "application/cbor", "\xd9\xd9\xf7" + strings.Repeat("\x81", 1_000_000)},
		{"PATCH", configMaps + "/x?fieldManager=m", "application/apply-patch+yaml", "metadata: " + deep},
		{"PATCH", configMaps + "/x?fieldManager=m", "application/apply-patch+cbor", "\xd9\xd9\xf7" + strings.Repeat("\x81", 1_000_000)},
		{"PATCH", configMaps + "/x", "application/merge-patch+json", `{"metadata":` + deep},
		{"PATCH", configMaps + "/x", "application/strategic-merge-patch+json", `{"metadata":` + deep},
		{"PATCH", configMaps + "/x", "application/json-patch+json", `[{"op":"add","path":"/data","value":` + deep},
		{"DELETE", configMaps + "/x", "application/json", deep},
	} {
		there := httptest.NewRequest("POST", configMaps, strings.NewReader(`{"metadata":{"name":"x"}}`))
		there.Header.Set("Content-Type", "application/json")
		s.ServeHTTP(httptest.NewRecorder(), there)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.contentType)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		runtime.ReadMemStats(&after)
		if w.Code < 400 || w.Code >= 500 {
			t.Errorf("%s %s as %s: %d %.200s", c.method, c.path, c.contentType, w.Code, w.Body)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 400<<20 {
			t.Errorf("%s %s as %s (%.20q) took %d MB", c.method, c.path, c.contentType, c.body, used>>20)
		}
	}
}
