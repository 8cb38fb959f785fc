package controlplane

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/test/harness"
)

// FuzzRequest sends arbitrary requests: to any path, query, header and body the
// API server answers, and not with an error of its own.
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
	c := boot(f, Options{NoDrain: true})
	if w := ask(c, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", fishDefinition); w.Code != http.StatusCreated {
		f.Fatal(w.Body)
	}
	harness.Eventually(f, "the definition to be served", func() bool { return ask(c, "GET", fish, "").Code == http.StatusOK })
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
		c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), inprocess.Admin)))
		if w.Code == http.StatusInternalServerError && strings.Contains(w.Body.String(), "panic") {
			t.Errorf("%s %s: %s", method, target, w.Body)
		}
	})
}

// FuzzSelectors lists with arbitrary selectors: the answer holds the objects that
// the selector matches, or an error that the selector is invalid.
func FuzzSelectors(f *testing.F) {
	for _, s := range [][2]string{{"a=b", "spec.nodeName=n1"}, {"a in (b,c),!d,e", "metadata.name=p1,status.phase!=Running"}, {"a notin (b)", "spec.nodeName!=n1"}, {"a>1,a<7", "metadata.namespace=default"},
		{"", "metadata.name=p,metadata.name=q"}, {"a==", "spec.nodeName="}, {"a!=b", `metadata.name=p\,1`}, {"!a", "metadata.name!=p1,metadata.namespace=other"}} {
		f.Add(s[0], s[1])
	}
	c := boot(f, Options{NoDrain: true})
	if w := ask(c, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"default"}}`); w.Code != http.StatusCreated {
		f.Fatal(w.Body)
	}
	for i, labelled := range []string{`{}`, `{"a":"b"}`, `{"a":"c","e":""}`, `{"a":"5","d":"x"}`} {
		for _, node := range []string{"", "n1", "n2"} {
			body := fmt.Sprintf(`{"metadata":{"name":"p%d%s","labels":%s},"spec":{"nodeName":%q,"containers":[{"name":"c","image":"i"}]}}`, i, node, labelled, node)
			if w := ask(c, "POST", "/api/v1/namespaces/default/pods", body); w.Code != http.StatusCreated {
				f.Fatal(w.Body)
			}
		}
	}
	all, err := c.Client(inprocess.Admin).CoreV1().Pods("").List(f.Context(), metav1.ListOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, label, field string) {
		for _, namespace := range []string{"", "default", "other"} {
			got, err := c.Client(inprocess.Admin).CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: label, FieldSelector: field})
			byLabel, lerr := labels.Parse(label)
			byField, ferr := fields.ParseSelector(field)
			if err != nil {
				known := ferr == nil && !slices.ContainsFunc(byField.Requirements(), func(r fields.Requirement) bool {
					return !slices.Contains([]string{"metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"}, r.Field)
				})
				if lerr == nil && known || !apierrors.IsBadRequest(err) {
					t.Errorf("%q, %q: %v", label, field, err)
				}
				continue
			}
			if lerr != nil || ferr != nil {
				t.Errorf("%q, %q is taken: %v, %v", label, field, lerr, ferr)
				continue
			}
			if slices.ContainsFunc(byField.Requirements(), func(r fields.Requirement) bool {
				return !slices.Contains([]string{"metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"}, r.Field)
			}) {
				continue // of what else there is this does not know the values
			}
			var want, have []string
			for _, p := range all.Items {
				set := fields.Set{"metadata.name": p.Name, "metadata.namespace": p.Namespace, "spec.nodeName": p.Spec.NodeName, "status.phase": string(p.Status.Phase)}
				if (namespace == "" || p.Namespace == namespace) && byLabel.Matches(labels.Set(p.Labels)) && byField.Matches(set) {
					want = append(want, p.Name)
				}
			}
			for _, p := range got.Items {
				have = append(have, p.Name)
			}
			if !slices.Equal(have, want) {
				t.Errorf("in %q %q, %q: %v, want %v", namespace, label, field, have, want)
			}
		}
	})
}

// FuzzWebhook makes a webhook send arbitrary answers, and checks that the API
// server still answers, and stores no object but one that it would store without.
func FuzzWebhook(f *testing.F) {
	patch := base64.StdEncoding.EncodeToString([]byte(`[{"op":"add","path":"/data","value":{"a":"b"}}]`))
	for _, answer := range []string{
		`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"$UID","allowed":true,"patchType":"JSONPatch","patch":"` + patch + `"}}`,
		`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"$UID","allowed":false,"status":{"code":200,"message":"no"},"warnings":["w"],"auditAnnotations":{"k":"v"}}}`,
		`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":null}`, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","response":{"allowed":true}}`, `{"kind":"Status","code":-1}`, ``, `[]`,
	} {
		f.Add(http.StatusOK, answer)
	}
	f.Add(http.StatusInternalServerError, "no")
	f.Add(http.StatusMovedPermanently, "")
	var mu sync.Mutex
	var code int
	var answer string
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var review struct{ Request struct{ UID string } }
		_ = json.NewDecoder(req.Body).Decode(&review)
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, strings.ReplaceAll(answer, "$UID", review.Request.UID))
	}))
	f.Cleanup(hook.Close)
	c := boot(f, Options{NoDrain: true})
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw}))
	for kind, path := range map[string]string{"Mutating": "mutatingwebhookconfigurations", "Validating": "validatingwebhookconfigurations"} {
		w := ask(c, "POST", "/apis/admissionregistration.k8s.io/v1/"+path, fmt.Sprintf(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"%sWebhookConfiguration","metadata":{"name":"fuzz"},"webhooks":[{"name":"fuzz.example.com",
			"sideEffects":"None","admissionReviewVersions":["v1","v1beta1"],"clientConfig":{"url":%q,"caBundle":%q},"rules":[{"operations":["CREATE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["configmaps"]}]}]}`, kind, hook.URL, ca))
		if w.Code != http.StatusCreated {
			f.Fatal(w.Body)
		}
	}
	mu.Lock()
	code, answer = http.StatusInternalServerError, ""
	mu.Unlock()
	const maps = "/api/v1/namespaces/default/configmaps"
	harness.Eventually(f, "the webhooks to be asked", func() bool {
		return ask(c, "POST", maps+"?dryRun=All", `{"metadata":{"name":"m"}}`).Code != http.StatusCreated
	})
	f.Fuzz(func(t *testing.T, status int, said string) {
		if status < 200 || status > 999 {
			return // net/http sends no such thing
		}
		mu.Lock()
		code, answer = status, said
		mu.Unlock()
		w := ask(c, "POST", maps+"?dryRun=All", `{"metadata":{"name":"m"},"data":{"k":"v"}}`)
		if strings.Contains(w.Body.String(), "panic") {
			t.Errorf("%d %q: %s", status, said, w.Body)
		}
		if w.Code == http.StatusCreated {
			var m v1.ConfigMap
			if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil || m.Name != "m" || m.Namespace != "default" || m.UID == "" {
				t.Errorf("%d %q made %s: %v", status, said, w.Body, err)
			}
		} else if w.Code < 400 {
			t.Errorf("%d %q: %d %s", status, said, w.Code, w.Body)
		}
	})
}
