package controlplane

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/test/harness"
)

// TestOpenAPIDocuments checks that a new definition changes its own group
// version's document and no other's, and that the hashes, by which clients keep
// documents, change for that one only.
func TestOpenAPIDocuments(t *testing.T) {
	o := Options{DataDir: t.TempDir(), NoDrain: true}
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string, header ...string) *httptest.ResponseRecorder {
		req := httptest.NewRequest("GET", path, nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), inprocess.Admin)))
		return w
	}
	served := func(n int) {
		harness.Eventually(t, "the definition to be served", func() bool {
			return get(fmt.Sprintf("/apis/group%d.example.com/v1/things%d", n%100, n)).Code == http.StatusOK
		})
	}
	define := func(n int) {
		t.Helper()
		if r := ask(c, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(n)); r.Code != http.StatusCreated {
			t.Fatal(r.Body)
		}
		served(n)
	}
	index := func() map[string]string {
		t.Helper()
		var root struct {
			Paths map[string]struct{ ServerRelativeURL string }
		}
		if err := json.Unmarshal(get("/openapi/v3").Body.Bytes(), &root); err != nil {
			t.Fatal(err)
		}
		urls := map[string]string{}
		for path, p := range root.Paths {
			urls[path] = p.ServerRelativeURL
		}
		return urls
	}
	for _, n := range []int{1, 502, 402, 302, 202, 2} {
		define(n)
	}
	old := index()
	define(102) // of the group of the second
	now := index()
	for path, url := range now {
		if (old[path] != url) != (path == "apis/group2.example.com/v1") {
			t.Errorf("%s was at %s, and is at %s", path, old[path], url)
		}
		r := get(url)
		if r.Code != http.StatusOK || r.Header().Get("Cache-Control") != "public, immutable" || r.Header().Get("Expires") == "" || !strings.Contains(url, strings.Trim(r.Header().Get("ETag"), `"`)) {
			t.Errorf("%s: %d, %v", url, r.Code, r.Header())
		}
	}
	const group = "/openapi/v3/apis/group2.example.com/v1"
	if r := get(old["apis/group2.example.com/v1"]); r.Code != http.StatusMovedPermanently || r.Header().Get("Location") != now["apis/group2.example.com/v1"] {
		t.Errorf("the old document: %d to %s, want %s", r.Code, r.Header().Get("Location"), now["apis/group2.example.com/v1"])
	}
	if body := get(group).Body.String(); !strings.Contains(body, "namespaces/{namespace}/things2") || !strings.Contains(body, "namespaces/{namespace}/things102") {
		t.Error("the document lacks a resource")
	}
	const protobuf = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
	for accept, want := range map[string]string{
		"": "application/json", "*/*": "application/json", "application/*": "application/json", "text/html, application/json;q=0.9": "application/json",
		protobuf: protobuf, "application/com.github.proto-openapi.spec.v3@v1.0+protobuf": protobuf, "text/html": "",
	} {
		r := get(group, "Accept", accept)
		if got := r.Header().Get("Content-Type"); got != want || (r.Code == http.StatusNotAcceptable) != (want == "") {
			t.Errorf("accepting %q: %d, %q", accept, r.Code, got)
		}
	}
	for _, path := range []string{"/openapi/v2", "/openapi/v3", group, now["apis/group2.example.com/v1"]} {
		tag := get(path).Header().Get("ETag")
		if r := get(path, "If-None-Match", tag); r.Code != http.StatusNotModified || tag == "" || r.Body.Len() > 0 {
			t.Errorf("%s again: %d, %q", path, r.Code, tag)
		}
	}
	if body := get("/openapi/v2").Body.String(); !strings.Contains(body, "/apis/group2.example.com/v1/namespaces/{namespace}/things102") || !strings.Contains(body, "/api/v1/namespaces/{namespace}/pods") {
		t.Error("the document of everything lacks a resource")
	}
	if r := ask(c, "DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things1.group1.example.com", ""); r.Code != http.StatusOK {
		t.Fatal(r.Body)
	}
	harness.Eventually(t, "the document to go", func() bool { return get("/openapi/v3/apis/group1.example.com/v1").Code == http.StatusNotFound })
	if url, ok := index()["apis/group1.example.com/v1"]; ok {
		t.Errorf("the index still has %s", url)
	}
	// Another server, or this one after a restart, knows the document by the same hash.
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	c = boot(t, o)
	for _, n := range []int{502, 402, 302, 202, 102, 2} {
		served(n)
	}
	for path, url := range index() {
		if now[path] != url {
			t.Errorf("after a restart %s is at %s, was at %s", path, url, now[path])
		}
	}
}

// TestUnknownGroups checks that a group that is not served is not found, whatever
// the client accepts; a served one is given in known forms only.
func TestUnknownGroups(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	const notFound = "404 page not found\n"
	refused := `"status":"Failure","message":"only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf`
	for _, x := range []struct {
		path, accept string
		code         int
		body         string
	}{
		{"/apis/nothing.example.com", "", 404, notFound},
		{"/apis/nothing.example.com/v1", "", 404, notFound},
		{"/apis/nothing.example.com/v1", "text/html", 404, notFound},
		{"/apis/nothing.example.com/v1/things", "", 404, notFound},
		{"/apis/apps/v9", "", 404, notFound},
		{"/apis/apps/v1/nothing", "", 404, notFound},
		{"/api/v2", "", 404, notFound},
		{"/openapi/v3/apis/nothing.example.com/v1", "", 404, notFound},
		{"/api", "text/html", 406, refused},
		{"/apis", "text/html", 406, refused},
		{"/apis/apps", "text/html", 406, refused},
		{"/apis/apps/v1", "text/html", 406, refused},
		{"/apis/apps/v1", "text/html, */*;q=0.1", 200, `"kind":"APIResourceList"`},
	} {
		req := httptest.NewRequest("GET", x.path, nil)
		if x.accept != "" {
			req.Header.Set("Accept", x.accept)
		}
		w := httptest.NewRecorder()
		c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), inprocess.Admin)))
		if w.Code != x.code || !strings.Contains(w.Body.String(), x.body) {
			t.Errorf("%s accepting %q: %d %s; want %d %s", x.path, x.accept, w.Code, w.Body, x.code, x.body)
		}
	}
}
