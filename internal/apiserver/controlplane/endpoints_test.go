package controlplane

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/inprocess"
)

//go:embed testdata/endpoints-v1.37.tsv
var endpointTable string

// answers to requests that nothing serves.
func unserved(w *httptest.ResponseRecorder) bool {
	switch w.Code {
	case http.StatusMethodNotAllowed:
		return true
	case http.StatusNotFound:
		var s metav1.Status
		// A served path names the object that does not exist.
		return json.Unmarshal(w.Body.Bytes(), &s) != nil || s.Details == nil || s.Details.Name == ""
	}
	return false
}

// TestEndpoints checks that every stable endpoint of v1.37 is in discovery with its
// verb, and is answered.
func TestEndpoints(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	discovered := map[string]*metav1.APIResourceList{}
	resource := func(path string) *metav1.APIResource {
		parts := strings.Split(strings.Trim(path, "/"), "/")
		n := 2
		if parts[0] == "apis" {
			n = 3
		}
		gv, rest := "/"+strings.Join(parts[:n], "/"), parts[n:]
		if len(rest) > 2 && rest[0] == "namespaces" && rest[2] != "status" && rest[2] != "finalize" {
			rest = rest[2:]
		}
		name := rest[0]
		if len(rest) > 2 {
			name += "/" + rest[2]
		}
		if discovered[gv] == nil {
			discovered[gv] = &metav1.APIResourceList{}
			if err := json.Unmarshal(ask(c, "GET", gv, "").Body.Bytes(), discovered[gv]); err != nil {
				t.Fatalf("%s: %v", gv, err)
			}
		}
		for i := range discovered[gv].APIResources {
			if r := &discovered[gv].APIResources[i]; r.Name == name {
				return r
			}
		}
		t.Errorf("discovery: %s has no %s", gv, name)
		return &metav1.APIResource{}
	}
	verbs := map[string]string{"post": "create", "put": "update", "list": "list", "get": "get", "patch": "patch", "delete": "delete", "deletecollection": "deletecollection",
		"connect:GET": "get", "connect:POST": "create", "connect:PUT": "update", "connect:PATCH": "patch", "connect:DELETE": "delete"}
	methods := map[string]string{"post": "POST", "put": "PUT", "list": "GET", "get": "GET", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE"}
	count := 0
	for line := range strings.Lines(endpointTable) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		path, actions, _ := strings.Cut(strings.TrimSpace(line), "\t")
		for action := range strings.FieldsSeq(actions) {
			count++
			if action == "GET" {
				if strings.Contains(path, "{") {
					continue
				}
				if w := ask(c, "GET", path, ""); w.Code != http.StatusOK {
					t.Errorf("GET %s: %d", path, w.Code)
				}
				continue
			}
			r := resource(path)
			if verb := verbs[action]; verb != "" && !slices.Contains(r.Verbs, verb) && !strings.HasSuffix(path, "{path}") {
				t.Errorf("discovery: %s has the verbs %q, not %s", r.Name, r.Verbs, verb)
			}
			method := methods[action]
			if m, connect := strings.CutPrefix(action, "connect:"); connect {
				method = m
			}
			url := strings.NewReplacer("{namespace}", "absent", "{name}", "absent", "{path}", "p").Replace(path)
			if action == "deletecollection" {
				url += "?dryRun=All"
			}
			req := httptest.NewRequest(method, url, strings.NewReader("{}"))
			req.Header.Set("Content-Type", "application/json")
			if method == "PATCH" {
				req.Header.Set("Content-Type", "application/merge-patch+json")
			}
			w := httptest.NewRecorder()
			c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), inprocess.Admin)))
			if unserved(w) || w.Code == http.StatusUnsupportedMediaType || w.Code == http.StatusInternalServerError {
				t.Errorf("%s %s: %d %s", method, url, w.Code, w.Body)
			}
		}
	}
	if count < 600 {
		t.Errorf("there are only %d endpoints", count)
	}
}

// names are the short names and categories that upstream gives.
const names = `
componentstatuses cs
configmaps cm
endpoints ep
events ev
limitranges limits
namespaces ns
nodes no
persistentvolumeclaims pvc
persistentvolumes pv
pods po all
replicationcontrollers rc all
resourcequotas quota
serviceaccounts sa
services svc all
apps/daemonsets ds all
apps/deployments deploy all
apps/replicasets rs all
apps/statefulsets sts all
events.k8s.io/events ev
autoscaling/horizontalpodautoscalers hpa all
batch/cronjobs cj all
batch/jobs all
certificates.k8s.io/certificatesigningrequests csr
networking.k8s.io/ingresses ing
networking.k8s.io/ipaddresses ip
networking.k8s.io/networkpolicies netpol
networking.k8s.io/servicecidrs
policy/poddisruptionbudgets pdb
scheduling.k8s.io/priorityclasses pc
storage.k8s.io/storageclasses sc
storage.k8s.io/volumeattributesclasses vac
apiextensions.k8s.io/customresourcedefinitions crd crds api-extensions
apiregistration.k8s.io/apiservices api-extensions
admissionregistration.k8s.io/mutatingwebhookconfigurations api-extensions
admissionregistration.k8s.io/validatingwebhookconfigurations api-extensions
admissionregistration.k8s.io/validatingadmissionpolicies api-extensions
admissionregistration.k8s.io/validatingadmissionpolicybindings api-extensions
admissionregistration.k8s.io/mutatingadmissionpolicies api-extensions
admissionregistration.k8s.io/mutatingadmissionpolicybindings api-extensions
`

func TestNames(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	want := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(names)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[name] = rest
	}
	for _, r := range c.Catalogue.Rows() {
		key := r.Resource
		if r.Group != "" {
			key = r.Group + "/" + key
		}
		if got := strings.Join(append(slices.Clone(r.ShortNames), r.Categories...), " "); got != want[key] {
			t.Errorf("%s is called %q, want %q", key, got, want[key])
		}
	}
}

// TestStorageVersionHash has hashes that upstream's discovery has had for years.
func TestStorageVersionHash(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	for path, want := range map[string]map[string]string{
		"/api/v1":                {"pods": "xPOwRZ+Yhw8=", "services": "0/CO1lhkEBI=", "namespaces": "Q3oi5N2YM8M=", "pods/status": "", "bindings": "", "events": "r2yiGXH7wu8="},
		"/apis/apps/v1":          {"deployments": "8aSe+NMegvE="},
		"/apis/autoscaling/v1":   {"horizontalpodautoscalers": "qwQve8ut294="},
		"/apis/autoscaling/v2":   {"horizontalpodautoscalers": "qwQve8ut294="},
		"/apis/events.k8s.io/v1": {"events": "r2yiGXH7wu8="},
	} {
		var l metav1.APIResourceList
		if err := json.Unmarshal(ask(c, "GET", path, "").Body.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		for _, r := range l.APIResources {
			if hash, ok := want[r.Name]; ok && r.StorageVersionHash != hash {
				t.Errorf("%s: %s has the hash %q, want %q", path, r.Name, r.StorageVersionHash, hash)
			}
		}
	}
}

// TestFieldSelectors checks that names and namespaces select everywhere, and that
// other fields are refused with upstream's message.
func TestFieldSelectors(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	for _, r := range c.Catalogue.Rows() {
		if !r.HasVerb("list") {
			continue
		}
		path := "/apis/" + r.Group + "/" + r.Version + "/" + r.Resource
		if r.Group == "" {
			path = "/api/" + r.Version + "/" + r.Resource
		}
		labels := append([]string{"metadata.name"}, r.FieldLabels...)
		if r.Namespaced {
			labels = append(labels, "metadata.namespace")
		}
		for _, l := range labels {
			if w := ask(c, "GET", path+"?fieldSelector="+l+"%3Dnothing", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"items":[]`) {
				t.Errorf("%s by %s: %d %.200s", path, l, w.Code, w.Body)
			}
		}
		w := ask(c, "GET", path+"?fieldSelector=spec.nothing%3Dx", "")
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "field label not supported: spec.nothing") && !strings.Contains(w.Body.String(), `\"spec.nothing\" is not a known field selector`) && !strings.Contains(w.Body.String(), `field label \"spec.nothing\" not supported for batchv1.Job`) {
			t.Errorf("%s by spec.nothing: %d %s", path, w.Code, w.Body)
		}
	}
}
