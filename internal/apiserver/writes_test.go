package apiserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"keelson.dev/keelson/internal/api/catalogue"
)

// warnings returns the warnings of an answer, without their codes and agents.
func (got answer) warnings() (out []string) {
	for _, w := range got.header["Warning"] {
		_, text, _ := strings.Cut(w, `"`)
		out = append(out, strings.ReplaceAll(strings.TrimSuffix(text, `"`), `\"`, `"`))
	}
	return out
}

// TestUnconditionalUpdates checks which kinds require a resourceVersion in an
// update, by upstream's strategies. All others replace the latest version.
func TestUnconditionalUpdates(t *testing.T) {
	conditional := []string{
		"apiextensions.k8s.io/customresourcedefinitions", "apiregistration.k8s.io/apiservices", "coordination.k8s.io/leases", "node.k8s.io/runtimeclasses",
		"policy/poddisruptionbudgets", "storagemigration.k8s.io/storageversionmigrations", "certificates.k8s.io/clustertrustbundles", "certificates.k8s.io/podcertificaterequests",
		"storage.k8s.io/csidrivers", "storage.k8s.io/csinodes", "storage.k8s.io/csistoragecapacities", "storage.k8s.io/volumeattachments",
		"admissionregistration.k8s.io/mutatingwebhookconfigurations", "admissionregistration.k8s.io/validatingwebhookconfigurations",
		"admissionregistration.k8s.io/validatingadmissionpolicies", "admissionregistration.k8s.io/validatingadmissionpolicybindings",
		"admissionregistration.k8s.io/mutatingadmissionpolicies", "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
	}
	for _, r := range catalogue.Builtin() {
		if want := slices.Contains(conditional, r.Group+"/"+r.Resource); r.RequireResourceVersion != want && !r.NotStored {
			t.Errorf("%s wants a resourceVersion: %v, not %v", r.GroupVersionResource, r.RequireResourceVersion, want)
		}
	}
	a := start(t)
	path := a.define("cond.example", version{name: "v1", schema: `"spec":{"type":"object","properties":{"x":{"type":"string"}}},"status":{"type":"object","properties":{"x":{"type":"string"}}}`})("v1")
	const leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
	custom := `{"apiVersion":"cond.example/v1","kind":"Thing","metadata":{"name":"u"%s},"spec":{"x":"%s"}}`
	a.do("POST", path, fmt.Sprintf(custom, "", "a"))
	a.do("POST", leases, `{"metadata":{"name":"u"},"spec":{"holderIdentity":"a"}}`)
	a.do("POST", configMaps, `{"metadata":{"name":"u"}}`)
	for _, c := range []struct {
		name, method, path, kind, body, want string
	}{
		{"custom resource", "PUT", path + "/u", "", fmt.Sprintf(custom, "", "b"), `things.cond.example "u" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update`},
		{"its status", "PUT", path + "/u/status", "", fmt.Sprintf(custom, "", "b"), `things.cond.example "u" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update`},
		{"a patch that removes it", "PATCH", path + "/u", merge, `{"metadata":{"resourceVersion":null},"spec":{"x":"c"}}`, `things.cond.example "u" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update`},
		{"a patch", "PATCH", path + "/u", merge, `{"spec":{"x":"c"}}`, ""},
		{"lease", "PUT", leases + "/u", "", `{"metadata":{"name":"u"},"spec":{"holderIdentity":"b"}}`, `leases.coordination.k8s.io "u" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update`},
		{"lease that is not there", "PUT", leases + "/new", "", `{"metadata":{"name":"new"},"spec":{"holderIdentity":"b"}}`, ""},
		{"config map", "PUT", configMaps + "/u", "", `{"metadata":{"name":"u"}}`, ""},
		{"config map, removed by a patch", "PATCH", configMaps + "/u", merge, `{"metadata":{"resourceVersion":null,"labels":{"a":"b"}}}`, ""},
	} {
		kind := c.kind
		if kind == "" {
			kind = "application/json"
		}
		got := a.do(c.method, c.path, c.body, "Content-Type", kind)
		if code := http.StatusUnprocessableEntity; c.want != "" && (got.code != code || got.Message != c.want) || c.want == "" && got.code >= 300 {
			t.Errorf("%s: %d %s", c.name, got.code, got.Message)
		}
	}
}

// TestStrictPatches checks that duplicate and unknown fields of a patch are
// warned of or refused.
func TestStrictPatches(t *testing.T) {
	a := start(t)
	path := a.define("strict.example", version{name: "v1", schema: `"spec":{"type":"object","properties":{"a":{"type":"string"}}}`})("v1")
	const cm = configMaps + "/s"
	a.do("POST", configMaps, `{"metadata":{"name":"s"}}`)
	a.do("POST", path, `{"apiVersion":"strict.example/v1","kind":"Thing","metadata":{"name":"s"},"spec":{"a":"b"}}`)
	const head, thing = `"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"s"}`, `"apiVersion":"strict.example/v1","kind":"Thing","metadata":{"name":"s"}`
	for _, c := range []struct {
		name, path, kind, body string
		want                   string // the warning of fieldValidation Warn
		strict                 string // in the error of fieldValidation Strict
	}{
		{"merge", cm, merge, `{"data":{"a":"1","a":"2"}}`, `duplicate field "data.a"`, `strict decoding error: duplicate field "data.a"`},
		{"merge, both", cm, merge, `{"data":{"a":"1","a":"2"},"dada":{}}`, `duplicate field "data.a"`, `strict decoding error: duplicate field "data.a", unknown field "dada"`},
		{"strategic merge", cm, strategic, `{"data":{"a":"1","a":"2"}}`, `duplicate field "data.a"`, `strict decoding error: duplicate field "data.a"`},
		{"JSON", cm, jsonPatch, `[{"op":"add","path":"/data","value":{"a":"1"},"value":{"a":"2"}}]`, `json patch duplicate field "[0].value"`, `strict decoding error: json patch duplicate field "[0].value"`},
		{"JSON, unknown", cm, jsonPatch, `[{"op":"add","path":"/data","value":{"a":"1"},"walue":1}]`, `json patch unknown field "[0].walue"`, `strict decoding error: json patch unknown field "[0].walue"`},
		{"apply", cm, apply, `{` + head + `,"data":{"b":"1","b":"2"}}`, `line 1: key "b" already set in map`, `error strict decoding patch: `},
		{"custom, merge", path + "/s", merge, `{"spec":{"a":"1","a":"2"}}`, `duplicate field "spec.a"`, `strict decoding error: duplicate field "spec.a"`},
		{"custom, merge, both", path + "/s", merge, `{"spec":{"a":"1","a":"2","b":1}}`, `unknown field "spec.b"`, `strict decoding error: duplicate field "spec.a", unknown field "spec.b"`},
		{"custom, apply", path + "/s", apply, `{` + thing + `,"spec":{"a":"1","a":"2"}}`, `line 1: key "a" already set in map`, `error strict decoding patch: `},
	} {
		query := "?fieldManager=m"
		if c.kind == apply {
			query += "&force=true"
		}
		got := a.do("PATCH", c.path+query, c.body, "Content-Type", c.kind)
		if got.code != http.StatusOK || !slices.ContainsFunc(got.warnings(), func(w string) bool { return strings.HasPrefix(w, c.want) }) {
			t.Errorf("%s: %d %s %q, want %q", c.name, got.code, got.Message, got.warnings(), c.want)
		}
		got = a.do("PATCH", c.path+query+"&fieldValidation=Strict", c.body, "Content-Type", c.kind)
		if got.code != http.StatusBadRequest || !strings.Contains(got.Message, c.strict) {
			t.Errorf("%s, strict: %d %s, want %q", c.name, got.code, got.Message, c.strict)
		}
		got = a.do("PATCH", c.path+query+"&fieldValidation=Ignore", c.body, "Content-Type", c.kind)
		if got.code != http.StatusOK || len(got.warnings()) > 0 {
			t.Errorf("%s, ignored: %d %s %q", c.name, got.code, got.Message, got.warnings())
		}
	}
	for _, validation := range []string{"", "Ignore", "Strict"} {
		for path, body := range map[string]string{cm: `{` + head + `,"dada":{}}`, path + "/s": `{` + thing + `,"spec":{"b":"1"}}`} {
			field, of := ".dada", "/s; /v1, Kind=ConfigMap"
			if strings.Contains(body, "Thing") {
				field, of = ".spec.b", "/s; strict.example/v1, Kind=Thing"
			}
			got := a.do("PATCH", path+"?fieldManager=m&fieldValidation="+validation, body, "Content-Type", apply)
			if want := "failed to create typed patch object (" + of + "): " + field + ": field not declared in schema"; got.code != http.StatusInternalServerError || got.Message != want {
				t.Errorf("an unknown field that is applied: %d %s, want %s", got.code, got.Message, want)
			}
		}
	}
}

// TestMetadataOfUpdates checks the metadata that an update must not change.
func TestMetadataOfUpdates(t *testing.T) {
	a := start(t)
	path := a.define("meta.example", version{name: "v1", schema: `"spec":{"type":"object"}`})("v1")
	for name, o := range map[string]struct{ path, body string }{
		"config map":      {configMaps, `{"metadata":{"name":"o"}}`},
		"custom resource": {path, `{"apiVersion":"meta.example/v1","kind":"Thing","metadata":{"name":"o"}}`},
	} {
		made := a.do("POST", o.path, o.body)
		if made.code != http.StatusCreated {
			t.Fatalf("%s: %d %s", name, made.code, made.Message)
		}
		for _, c := range []struct{ what, field, message string }{
			{"deletionTimestamp", `"deletionTimestamp":"2020-01-01T00:00:00Z"`, "metadata.deletionTimestamp: Invalid value: \"2020-01-01T00:00:00Z\": field is immutable"},
			{"deletionGracePeriodSeconds", `"deletionGracePeriodSeconds":30`, "metadata.deletionGracePeriodSeconds: Invalid value: 30: field is immutable"},
			{"uid", `"uid":"other"`, "metadata.uid: Invalid value: \"other\": field is immutable"},
		} {
			got := a.do("PATCH", o.path+"/o", `{"metadata":{`+c.field+`}}`, "Content-Type", merge)
			if got.code != http.StatusUnprocessableEntity || !strings.Contains(got.Message, c.message) {
				t.Errorf("%s: %s in a patch: %d %s", name, c.what, got.code, got.Message)
			}
			var obj map[string]any
			_ = json.Unmarshal(a.do("GET", o.path+"/o", "").body, &obj)
			var field map[string]any
			_ = json.Unmarshal([]byte("{"+c.field+"}"), &field)
			for k, v := range field {
				obj["metadata"].(map[string]any)[k] = v
			}
			body, _ := json.Marshal(obj)
			got = a.do("PUT", o.path+"/o", string(body))
			if want := http.StatusUnprocessableEntity; c.what == "uid" && got.code != http.StatusConflict || c.what != "uid" && got.code != want {
				t.Errorf("%s: %s in a PUT: %d %s", name, c.what, got.code, got.Message)
			}
		}
		got := a.do("PATCH", o.path+"/o", `{"metadata":{"creationTimestamp":"2020-01-01T00:00:00Z","labels":{"a":"b"}}}`, "Content-Type", merge)
		if got.code != http.StatusOK || got.field("metadata", "creationTimestamp") != made.field("metadata", "creationTimestamp") {
			t.Errorf("%s: another creationTimestamp: %d %s", name, got.code, got.body)
		}
	}
}

// TestLastFinalizer checks that the answer to a write that removes the last finalizer is
// what was written.
func TestLastFinalizer(t *testing.T) {
	a := start(t)
	path := a.define("last.example", version{name: "v1", schema: `"data":{"type":"object","additionalProperties":{"type":"string"}}`})("v1")
	for name, o := range map[string]struct{ path, head string }{
		"config map":      {configMaps, ``},
		"custom resource": {path, `"apiVersion":"last.example/v1","kind":"Thing",`},
	} {
		for _, w := range []struct{ method, kind, body string }{
			{"PATCH", merge, `{"metadata":{"finalizers":null},"data":{"k":"new"}}`},
			{"PATCH", jsonPatch, `[{"op":"remove","path":"/metadata/finalizers"},{"op":"replace","path":"/data/k","value":"new"}]`},
			{"PUT", "application/json", `{` + o.head + `"metadata":{"name":"lf","resourceVersion":"RV"},"data":{"k":"new"}}`},
		} {
			a.do("POST", o.path, `{`+o.head+`"metadata":{"name":"lf","finalizers":["a.b/c"]},"data":{"k":"old"}}`)
			a.do("DELETE", o.path+"/lf", "")
			before := a.do("GET", o.path+"/lf", "")
			rv, _ := before.field("metadata", "resourceVersion").(string)
			got := a.do(w.method, o.path+"/lf", strings.ReplaceAll(w.body, "RV", rv), "Content-Type", w.kind)
			if got.code != http.StatusOK || got.field("data", "k") != "new" || got.field("metadata", "finalizers") != nil || got.field("metadata", "deletionTimestamp") == nil {
				t.Errorf("%s, %s %s: %d %s", name, w.method, w.kind, got.code, got.body)
			}
			if after := a.do("GET", o.path+"/lf", ""); after.code != http.StatusNotFound {
				t.Errorf("%s, %s %s: it is still there: %d", name, w.method, w.kind, after.code)
			}
		}
	}
}

// TestReadBack checks that a client sees the same object before and after a
// restart.
func TestReadBack(t *testing.T) {
	a := start(t)
	const slices, secrets = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", "/api/v1/namespaces/default/secrets"
	for _, w := range []struct{ name, method, path, kind, body string }{
		{"create", "POST", slices, "application/json", `{"metadata":{"name":"e"},"addressType":"IPv4","endpoints":[],"ports":[]}`},
		{"update", "PUT", slices + "/e", "application/json", `{"metadata":{"name":"e","labels":{}},"addressType":"IPv4","endpoints":[],"ports":[]}`},
		{"patch", "PATCH", slices + "/e", merge, `{"metadata":{"labels":{"a":"b"}},"endpoints":[],"ports":[]}`},
		{"apply", "PATCH", slices + "/e?fieldManager=m&force=true", apply, `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"e"},"addressType":"IPv4","endpoints":[],"ports":[]}`},
	} {
		wrote := a.do(w.method, w.path, w.body, "Content-Type", w.kind)
		for what, got := range map[string]answer{"answer": wrote, "GET": a.do("GET", slices+"/e", "")} {
			if got.code >= 300 || !strings.Contains(string(got.body), `"endpoints":null,"ports":null`) {
				t.Errorf("%s, %s: %d %s", w.name, what, got.code, got.body)
			}
		}
	}
	got := a.do("POST", secrets, `{"metadata":{"name":"s"},"data":{"a":null,"b":""}}`)
	if !strings.Contains(string(got.body), `"data":{"a":"","b":""}`) {
		t.Errorf("a secret: %d %s", got.code, got.body)
	}
}

// TestDryRunCreate checks that the answer to a dry run has a name but no
// resourceVersion.
func TestDryRunCreate(t *testing.T) {
	a := start(t)
	const body = `{"metadata":{"name":"dr","resourceVersion":"1"}}`
	if got := a.do("POST", configMaps+"?dryRun=All", body); got.code != http.StatusCreated {
		t.Errorf("dry run: %d %s", got.code, got.Message)
	}
	if got := a.do("POST", configMaps, body); got.code != http.StatusInternalServerError || got.Message != "resourceVersion should not be set on objects to be created" {
		t.Errorf("%d %s", got.code, got.Message)
	}
	if got := a.do("POST", configMaps, `{"metadata":{"name":"Bad","resourceVersion":"1"}}`); got.code != http.StatusUnprocessableEntity {
		t.Errorf("validation comes first: %d %s", got.code, got.Message)
	}
}

// TestSingularFields checks that a field which repeats an element of a list field is
// kept equal to it, or refused.
func TestSingularFields(t *testing.T) {
	a := start(t)
	a.do("POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"default"}}`)
	const nodes, pods, services = "/api/v1/nodes", "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/services"
	for _, w := range []struct {
		name, method, path, kind, body string
		code                           int
		want                           string
	}{
		{"a node of one range", "POST", nodes, "", `{"metadata":{"name":"n"},"spec":{"podCIDR":"10.1.0.0/24"}}`, 201, `"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24"]`},
		{"another range", "PATCH", nodes + "/n", merge, `{"spec":{"podCIDR":"10.3.0.0/24"}}`, 422, `node updates may not change podCIDR except from \"\" to valid`},
		{"other ranges", "PATCH", nodes + "/n", merge, `{"spec":{"podCIDRs":["10.3.0.0/24"]}}`, 200, `"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24"]`},
		{"no range", "PATCH", nodes + "/n", merge, `{"spec":{"podCIDR":null}}`, 200, `"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24"]`},
		{"no range at all", "PATCH", nodes + "/n", merge, `{"spec":{"podCIDR":null,"podCIDRs":null}}`, 422, `may not change podCIDR`},
		{"a node of a list", "POST", nodes, "", `{"metadata":{"name":"l"},"spec":{"podCIDRs":["10.2.0.0/24"]}}`, 201, `"podCIDR":"10.2.0.0/24","podCIDRs":["10.2.0.0/24"]`},
		{"a node of two", "POST", nodes, "", `{"metadata":{"name":"two"},"spec":{"podCIDR":"10.2.0.0/24","podCIDRs":["10.4.0.0/24"]}}`, 201, `"podCIDR":"10.2.0.0/24","podCIDRs":["10.2.0.0/24"]`},
		{"pod", "POST", pods, "", `{"metadata":{"name":"p"},"spec":{"serviceAccount":"default","containers":[{"name":"c","image":"i"}]}}`, 201, `"serviceAccountName":"default","serviceAccount":"default"`},
		{"an address", "PATCH", pods + "/p/status", merge, `{"status":{"podIP":"10.1.0.1"}}`, 200, `"podIP":"10.1.0.1","podIPs":[{"ip":"10.1.0.1"}]`},
		{"another address", "PATCH", pods + "/p/status", strategic, `{"status":{"podIP":"10.1.0.2"}}`, 200, `"podIP":"10.1.0.2","podIPs":[{"ip":"10.1.0.2"}]`},
		{"no singular", "PATCH", pods + "/p/status", merge, `{"status":{"podIP":null,"podIPs":[{"ip":"10.1.0.3"}]}}`, 200, `"podIP":"10.1.0.3","podIPs":[{"ip":"10.1.0.3"}]`},
		{"host addresses", "PATCH", pods + "/p/status", merge, `{"status":{"hostIP":"10.0.0.1","hostIPs":[{"ip":"10.0.0.2"}]}}`, 422, "must be equal to `hostIP`"},
		{"service", "POST", services, "", `{"metadata":{"name":"s"},"spec":{"clusterIP":"None","ports":[{"port":80}]}}`, 201, `"clusterIP":"None","clusterIPs":["None"]`},
		{"service's other address", "PATCH", services + "/s", merge, `{"spec":{"clusterIPs":["10.96.0.9"]}}`, 422, "spec.clusterIPs"},
		{"load balancer", "POST", services, "", `{"metadata":{"name":"lb"},"spec":{"type":"LoadBalancer","ports":[{"port":80}]}}`, 201, ""},
		{"its address", "PATCH", services + "/lb/status", merge, `{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9"}]}}}`, 200, `"ip":"192.0.2.9"`},
		{"another type", "PATCH", services + "/lb", merge, `{"spec":{"type":"ClusterIP"}}`, 200, `"status":{"loadBalancer":{}}`},
	} {
		if w.kind == "" {
			w.kind = "application/json"
		}
		got := a.do(w.method, w.path, w.body, "Content-Type", w.kind)
		if got.code != w.code || !strings.Contains(string(got.body), w.want) {
			t.Errorf("%s: %d %s, want %s", w.name, got.code, got.body, w.want)
		}
	}
}

// TestDeprecations checks that every request for what upstream marks as
// deprecated gets a warning.
func TestDeprecations(t *testing.T) {
	a := start(t)
	const endpoints, accounts, services = "/api/v1/namespaces/default/endpoints", "/api/v1/namespaces/default/serviceaccounts", "/api/v1/namespaces/default/services"
	const old = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
	const mountable = "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
	for _, w := range []struct{ method, path, kind, body, want string }{
		{"POST", endpoints, "", `{"metadata":{"name":"e"}}`, old},
		{"GET", endpoints + "/e", "", "", old},
		{"GET", endpoints, "", "", old},
		{"GET", "/api/v1/endpoints", "", "", old},
		{"PUT", endpoints + "/e", "", `{"metadata":{"name":"e","labels":{"a":"b"}}}`, old},
		{"PATCH", endpoints + "/e", merge, `{"metadata":{"labels":{"a":"c"}}}`, old},
		{"DELETE", endpoints + "/e", "", "", old},
		{"DELETE", endpoints, "", "", old},
		{"GET", "/api/v1/componentstatuses", "", "", "v1 ComponentStatus is deprecated in v1.19+"},
		{"POST", accounts, "", `{"metadata":{"name":"a","annotations":{"kubernetes.io/enforce-mountable-secrets":"true"}}}`, mountable},
		{"PATCH", accounts + "/a", merge, `{"metadata":{"labels":{"a":"c"}}}`, ""},
		{"POST", services, "", `{"metadata":{"name":"s"},"spec":{"ports":[{"port":80}],"externalIPs":["192.0.2.1"]}}`, "spec.externalIPs is deprecated"},
		{"GET", "/apis/discovery.k8s.io/v1/endpointslices", "", "", ""},
	} {
		kind := w.kind
		if kind == "" {
			kind = "application/json"
		}
		got := a.do(w.method, w.path, w.body, "Content-Type", kind)
		if texts := got.warnings(); got.code >= 300 || w.want != "" && !slices.Contains(texts, w.want) || w.want == "" && len(texts) > 0 {
			t.Errorf("%s %s: %d %s %q, want %q", w.method, w.path, got.code, got.Message, texts, w.want)
		}
	}
}

// TestEvictionVersions checks that an Eviction may be of policy/v1beta1, of which
// nothing else is served.
func TestEvictionVersions(t *testing.T) {
	a := start(t)
	const pods = "/api/v1/namespaces/default/pods"
	a.do("POST", "/api/v1/namespaces/default/serviceaccounts", `{"metadata":{"name":"default"}}`)
	for _, c := range []struct {
		body string
		code int
		want string
	}{
		{`{"apiVersion":"policy/v1beta1","kind":"Eviction","metadata":{"name":"p"}}`, 201, ""},
		{`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"}}`, 201, ""},
		{`{"metadata":{"name":"p"}}`, 201, ""},
		{`{"apiVersion":"policy/v1beta1","kind":"Eviction","metadata":{"name":"p"},"deleteOptions":{"dryRun":["All"]}}`, 201, ""},
		{`{"apiVersion":"policy/v2","kind":"Eviction","metadata":{"name":"p"}}`, 400, ""},
		{`{"apiVersion":"policy/v1beta1","kind":"Eviction","metadata":{"name":"q"}}`, 400, "name in URL does not match name in Eviction object"},
		{`{"apiVersion":"policy/v1beta1","kind":"PodDisruptionBudget","metadata":{"name":"p"}}`, 400, ""},
	} {
		a.do("POST", pods, `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
		got := a.do("POST", pods+"/p/eviction", c.body)
		gone := a.do("GET", pods+"/p", "").code == http.StatusNotFound
		if got.code != c.code || c.want != "" && got.Message != c.want || gone != (c.code == 201 && !strings.Contains(c.body, "dryRun")) {
			t.Errorf("%s: %d %s, gone: %v", c.body, got.code, got.Message, gone)
		}
	}
}
