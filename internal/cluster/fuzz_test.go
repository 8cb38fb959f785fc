package cluster

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keelson.dev/keelson/internal/apiserver"
)

// FuzzRequest sends requests that nobody would: whatever comes in a path, a
// query, a header or a body, the API server answers, and not with an error of
// its own.
func FuzzRequest(f *testing.F) {
	const pods, fish = "/api/v1/namespaces/default/pods", "/apis/bench.example.com/v1/namespaces/default/fish"
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"resources":{"requests":{"cpu":"1"}}}]}}`
	const aFish = `{"apiVersion":"bench.example.com/v1","kind":"Fish","metadata":{"name":"f","managedFields":[{}]},"spec":{"colour":"red","length":1,"tags":["a"]}}`
	for _, r := range [][4]string{
		{"POST", pods, "application/json", pod},
		{"POST", pods + "?dryRun=All&fieldValidation=Strict&fieldManager=m", "application/yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: q}\nspec: {containers: [{name: c, image: i}]}\n"},
		{"POST", pods, "application/vnd.kubernetes.protobuf", "k8s\x00\n\t\n\x02v1\x12\x03Pod\x12\x05\n\x03\n\x01p\x1a\x00\"\x00"},
		{"POST", pods, "application/cbor", "\xd9\xd9\xf7\xa2japiVersionbv1dkindcPod"},
		{"POST", fish, "application/json", aFish},
		{"POST", fish, "application/cbor", "\xa1dkinddFish"},
		{"PUT", fish + "/f", "application/json", aFish},
		{"PATCH", pods + "/p", "application/json-patch+json", `[{"op":"add","path":"/metadata/labels","value":{"a":"b"}},{"op":"test","path":"/spec/containers/0/name","value":"c"}]`},
		{"PATCH", pods + "/p", "application/merge-patch+json", `{"metadata":{"labels":{"a":null}}}`},
		{"PATCH", pods + "/p", "application/strategic-merge-patch+json", `{"spec":{"$setElementOrder/containers":[{"name":"c"}],"containers":[{"name":"c","image":"j","$patch":"delete"}]}}`},
		{"PATCH", pods + "/p?fieldManager=m&force=true", "application/apply-patch+yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: b}}\n"},
		{"PATCH", fish + "/f?fieldManager=m", "application/apply-patch+yaml", "apiVersion: bench.example.com/v1\nkind: Fish\nspec: {tags: [x]}\n"},
		{"GET", pods + "?labelSelector=a%20in%20(b,c),!d&fieldSelector=spec.nodeName!=x&limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0", "", ""},
		{"GET", pods + "?resourceVersion=1&resourceVersionMatch=Exact", "", ""},
		{"GET", pods + "?watch=1&timeoutSeconds=0&resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", "", ""},
		{"GET", pods + "/p/log?tailLines=1&sinceTime=2020-01-01T00:00:00Z&container=c", "", ""},
		{"GET", pods + "/p/exec?command=a", "", ""},
		{"DELETE", pods + "/p", "application/json", `{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"x"},"propagationPolicy":"Orphan"}`},
		{"DELETE", pods + "?labelSelector=zz", "application/json", "{}"},
		{"PUT", "/apis/apps/v1/namespaces/default/deployments/d/scale", "application/json", `{"spec":{"replicas":2}}`},
		{"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json", `{"spec":{"resourceAttributes":{"verb":"get","resource":"pods","fieldSelector":{"rawSelector":"a=b"}}}}`},
		{"POST", "/apis/authentication.k8s.io/v1/tokenreviews", "application/json", `{"spec":{"token":"eyJhbGciOiJFUzI1NiJ9.e30.AA"}}`},
		{"POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", "application/json", strings.ReplaceAll(fishDefinition, "fish", "bird")},
		{"POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", "application/json", `{"metadata":{"name":"a"},"spec":{"request":"LS0tLS0=","signerName":"a/b","usages":["client auth"]}}`},
		{"GET", "/openapi/v3/apis/apps/v1?hash=x", "", ""}, {"GET", "/readyz?verbose&exclude=ping", "", ""}, {"GET", "//api//v1/..", "", ""}, {"GET", "/api/v1/watch/namespaces/default/pods/p", "", ""},
	} {
		f.Add(r[0], r[1], r[2], "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", []byte(r[3]))
	}
	c := boot(f, Options{NoScheduler: true, NoControllers: true, NoDrain: true})
	if w := ask(c, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", fishDefinition); w.Code != http.StatusCreated {
		f.Fatal(w.Body)
	}
	for ask(c, "GET", fish, "").Code != http.StatusOK {
		time.Sleep(time.Millisecond)
	}
	f.Fuzz(func(t *testing.T, method, target, contentType, accept string, body []byte) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://server"+target, strings.NewReader(string(body)))
		if err != nil || req.URL.Path == "" || req.URL.Path[0] != '/' || strings.HasPrefix(req.URL.Path, "/debug/pprof") || req.URL.Host != "server" {
			return // no client can send it, or it takes as long as it asks for
		}
		if req.URL.Query().Get("watch") != "" || strings.Contains(req.URL.Path, "/watch/") {
			ctx, cancel := context.WithTimeout(req.Context(), 5*time.Millisecond)
			defer cancel()
			req = req.WithContext(ctx)
		}
		req.RequestURI, req.RemoteAddr = req.URL.RequestURI(), "127.0.0.1:1"
		req.Header.Set("Content-Type", contentType)
		req.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), Admin)))
		if w.Code == http.StatusInternalServerError && strings.Contains(w.Body.String(), "panic") {
			t.Errorf("%s %s: %s", method, target, w.Body)
		}
	})
}
