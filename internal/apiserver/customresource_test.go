package apiserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"

	"keelson.dev/keelson/test/harness"
)

const (
	merge     = "application/merge-patch+json"
	strategic = "application/strategic-merge-patch+json"
	jsonPatch = "application/json-patch+json"
	apply     = "application/apply-patch+yaml"
	applyCBOR = "application/apply-patch+cbor"
)

// version is a version of a custom resource.
type version struct {
	name, schema string // of spec and status: the properties of the object, in JSON
	unserved     bool
	replicas     string // the path of the scale's replicas, if it has a scale
}

// define makes a custom resource of kind Thing in group, waits until it is served,
// and returns the path of its objects in a version.
func (a *api) define(group string, versions ...version) func(version string) string {
	a.Helper()
	var list []any
	for i, v := range versions {
		sub := map[string]any{"status": map[string]any{}}
		if v.replicas != "" {
			sub["scale"] = map[string]any{"specReplicasPath": v.replicas, "statusReplicasPath": ".status.replicas"}
		}
		list = append(list, map[string]any{"name": v.name, "served": !v.unserved, "storage": i == 0, "subresources": sub,
			"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": json.RawMessage("{" + v.schema + "}")}}})
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "things." + group},
		"spec": map[string]any{"group": group, "scope": "Namespaced", "versions": list,
			"names": map[string]any{"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}},
	})
	if err != nil {
		a.Fatal(err)
	}
	if got := a.do("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", string(body)); got.code != http.StatusCreated {
		a.Fatalf("defining %s: %d %s", group, got.code, got.Message)
	}
	path := func(version string) string { return "/apis/" + group + "/" + version + "/namespaces/default/things" }
	for _, v := range versions {
		harness.Eventually(a, v.name+" to be served", func() bool { return v.unserved || a.do("GET", path(v.name), "").code == http.StatusOK })
	}
	return path
}

// field returns the value at a path of the answer's object.
func (got answer) field(path ...string) any {
	u := unstructured.Unstructured{}
	if u.UnmarshalJSON(got.body) != nil {
		return nil
	}
	v, _, _ := unstructured.NestedFieldNoCopy(u.Object, path...)
	return v
}

// managers returns the managers of the answer's object, each as "name operation
// version subresource".
func (got answer) managers() (out []string) {
	u := unstructured.Unstructured{}
	if u.UnmarshalJSON(got.body) != nil {
		return nil
	}
	for _, m := range u.GetManagedFields() {
		out = append(out, strings.TrimSpace(fmt.Sprint(m.Manager, " ", m.Operation, " ", m.APIVersion, " ", m.Subresource)))
	}
	slices.Sort(out)
	return out
}

// TestIntegers checks that whole numbers stay whole and keep all digits in every
// form of a request.
func TestIntegers(t *testing.T) {
	a := start(t)
	const big = 9007199254740993 // 2^53+1, which no float64 is
	const schema = `"spec":{"type":"object","properties":{
		"replicas":{"type":"integer"},
		"n":{"type":"integer","format":"int64","x-kubernetes-validations":[{"rule":"self % 2 == 1"}]},
		"given":{"type":"integer","format":"int64","default":9007199254740993},
		"set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"integer"}},
		"map":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","required":["k"],"properties":{"k":{"type":"integer"}}}},
		"any":{"x-kubernetes-preserve-unknown-fields":true},
		"f":{"type":"number"}}},
		"status":{"type":"object","properties":{"replicas":{"type":"integer"},"n":{"type":"integer"}}}`
	path := a.define("integers.example", version{name: "v1", schema: schema, replicas: ".spec.replicas"}, version{name: "v2", schema: schema, replicas: ".spec.replicas"})
	object := func(v, name string) string {
		return fmt.Sprintf(`{"apiVersion":"integers.example/%s","kind":"Thing","metadata":{"name":%q},"spec":{"replicas":2,"n":%d,"set":[%d,1],"map":[{"k":%d}],"any":{"x":[%d]},"f":1.5}}`, v, name, big, big, big, big)
	}
	var asMap map[string]any
	inCBOR := func(body string) string {
		u := unstructured.Unstructured{}
		if err := u.UnmarshalJSON([]byte(body)); err != nil {
			t.Fatal(err)
		}
		asMap = u.Object
		b, err := direct.Marshal(asMap)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	check := func(name string, got answer) {
		t.Helper()
		if got.code != http.StatusOK && got.code != http.StatusCreated {
			t.Errorf("%s: %d %s", name, got.code, got.Message)
			return
		}
		for _, v := range []string{"v1", "v2"} {
			got := a.do("GET", path(v)+"/"+name, "")
			for _, p := range [][]string{{"spec", "n"}, {"spec", "given"}} {
				if got.field(p...) != int64(big) {
					t.Errorf("%s in %s: %v is %v", name, v, p, got.field(p...))
				}
			}
			if n := strings.Count(string(got.body), fmt.Sprint(big)); n < 5 {
				t.Errorf("%s in %s: %s", name, v, got.body)
			}
			if r := a.do("GET", path(v)+"/"+name+"/scale", ""); r.field("spec", "replicas") != int64(2) {
				t.Errorf("%s in %s: scale %d %s", name, v, r.code, r.body)
			}
		}
	}
	small := func(v, name string) {
		a.do("POST", path(v), fmt.Sprintf(`{"apiVersion":"integers.example/%s","kind":"Thing","metadata":{"name":%q},"spec":{"n":1}}`, v, name))
	}
	for _, v := range []string{"v1", "v2"} {
		check("json-"+v, a.do("POST", path(v), object(v, "json-"+v)))
		check("yaml-"+v, a.do("POST", path(v), object(v, "yaml-"+v), "Content-Type", "application/yaml"))
		check("cbor-"+v, a.do("POST", path(v), inCBOR(object(v, "cbor-"+v)), "Content-Type", "application/cbor"))
		check("apply-"+v, a.do("PATCH", path(v)+"/apply-"+v+"?fieldManager=m", object(v, "apply-"+v), "Content-Type", apply))
		check("apply-"+v, a.do("PATCH", path(v)+"/apply-"+v+"?fieldManager=m", object(v, "apply-"+v), "Content-Type", apply))
		check("applycbor-"+v, a.do("PATCH", path(v)+"/applycbor-"+v+"?fieldManager=m", inCBOR(object(v, "applycbor-"+v)), "Content-Type", applyCBOR))
		small(v, "merge-"+v)
		check("merge-"+v, a.do("PATCH", path(v)+"/merge-"+v, object(v, "merge-"+v), "Content-Type", merge))
		small(v, "jsonpatch-"+v)
		inCBOR(object(v, "x"))
		spec, _ := json.Marshal(asMap["spec"])
		check("jsonpatch-"+v, a.do("PATCH", path(v)+"/jsonpatch-"+v, fmt.Sprintf(`[{"op":"replace","path":"/spec","value":%s}]`, spec), "Content-Type", jsonPatch))
		status := a.do("PATCH", path(v)+"/merge-"+v+"/status?fieldManager=m", fmt.Sprintf(`{"apiVersion":"integers.example/%s","kind":"Thing","metadata":{"name":"merge-%s"},"status":{"n":%d}}`, v, v, big), "Content-Type", apply)
		if status.field("status", "n") != int64(big) {
			t.Errorf("a status that is applied: %d %s", status.code, status.body)
		}
	}
	// Its value is the key of an item, by which it is owned.
	one := a.do("GET", path("v1")+"/apply-v1", "")
	if !strings.Contains(string(one.body), `v:9007199254740993`) || !strings.Contains(string(one.body), `k:{\"k\":9007199254740993}`) {
		t.Errorf("managed fields: %s", one.body)
	}
	if got := a.do("PATCH", path("v1")+"/apply-v1?fieldManager=m", `{"apiVersion":"integers.example/v1","kind":"Thing","metadata":{"name":"apply-v1"},"spec":{"n":1.5}}`, "Content-Type", apply); got.code < 400 {
		t.Errorf("a fraction where a whole number belongs: %d %s", got.code, got.body)
	}

	deployment := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"big"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"x"}]}}}}`
	const deployments = "/apis/apps/v1/namespaces/default/deployments"
	if got := a.do("POST", deployments, deployment); got.code != http.StatusCreated {
		t.Fatal(got.Message)
	}
	for _, kind := range []string{strategic, merge, apply} {
		got := a.do("PATCH", deployments+"/big/status?fieldManager=m&force=true", fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","status":{"observedGeneration":%d}}`, big), "Content-Type", kind)
		if kind != apply {
			got = a.do("PATCH", deployments+"/big/status", fmt.Sprintf(`{"status":{"observedGeneration":%d}}`, big), "Content-Type", kind)
		}
		if got.field("status", "observedGeneration") != int64(big) {
			t.Errorf("%s: %d %s", kind, got.code, got.body)
		}
	}
}

// TestOwnersOverVersions checks that a write through one version keeps the fields
// that were applied through another, and conflicts with them.
func TestOwnersOverVersions(t *testing.T) {
	a := start(t)
	const schema = `"spec":{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}%s}},"status":{"type":"object","properties":{"s":{"type":"string"},"r":{"type":"integer"}}}`
	path := a.define("gears.example",
		version{name: "v1", schema: fmt.Sprintf(schema, ""), replicas: ".spec.n"},
		version{name: "v2", schema: fmt.Sprintf(schema, `,"c":{"type":"string","default":"d"}`)},
		version{name: "v3", schema: fmt.Sprintf(schema, ""), unserved: true})
	const hpas, events = "/namespaces/default/horizontalpodautoscalers", "/namespaces/default/events"
	for _, k := range []struct {
		name, first, second string // group versions
		path                string
		one, two, other     string // what is applied through the first, another's part, and a conflict
		owns                bool   // one is more than the conflict
	}{
		{"custom resource", "gears.example/v1", "gears.example/v2", "/namespaces/default/things", `"kind":"Thing","spec":{"a":"1"}`, `"kind":"Thing","spec":{"b":"1"}`, `"kind":"Thing","spec":{"a":"2"}`, false},
		{"custom resource, back", "gears.example/v2", "gears.example/v1", "/namespaces/default/things", `"kind":"Thing","spec":{"a":"1"}`, `"kind":"Thing","spec":{"b":"1"}`, `"kind":"Thing","spec":{"a":"2"}`, false},
		{"autoscaler", "autoscaling/v1", "autoscaling/v2", hpas, `"kind":"HorizontalPodAutoscaler","spec":{"maxReplicas":3,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"}}`,
			`"kind":"HorizontalPodAutoscaler","spec":{"minReplicas":2}`, `"kind":"HorizontalPodAutoscaler","spec":{"maxReplicas":4}`, true},
		{"autoscaler, back", "autoscaling/v2", "autoscaling/v1", hpas, `"kind":"HorizontalPodAutoscaler","spec":{"maxReplicas":3,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"}}`,
			`"kind":"HorizontalPodAutoscaler","spec":{"minReplicas":2}`, `"kind":"HorizontalPodAutoscaler","spec":{"maxReplicas":4}`, true},
		{"event", "v1", "events.k8s.io/v1", events, `"kind":"Event","metadata":{"labels":{"a":"1"}},"involvedObject":{"namespace":"default"},"reason":"a"`, `"kind":"Event","metadata":{"labels":{"b":"1"}}`,
			`"kind":"Event","metadata":{"labels":{"a":"2"}}`, true},
		{"migration", "storagemigration.k8s.io/v1beta1", "storagemigration.k8s.io/v1", "/storageversionmigrations", `"kind":"StorageVersionMigration","metadata":{"labels":{"a":"1"}},"spec":{"resource":{"group":"g","resource":"r"}}`,
			`"kind":"StorageVersionMigration","metadata":{"labels":{"b":"1"}}`, `"kind":"StorageVersionMigration","metadata":{"labels":{"a":"2"}}`, true},
	} {
		t.Run(k.name, func(t *testing.T) {
			a := &api{t, a.cfg, a.client, a.http}
			name := "o-" + strings.ReplaceAll(k.first, "/", "-")
			at := func(gv string) string {
				if gv == "v1" {
					return "/api/v1" + k.path + "/" + name
				}
				return "/apis/" + gv + k.path + "/" + name
			}
			body := func(gv, part string) string { return `{"apiVersion":"` + gv + `",` + part + `}` }
			if got := a.do("PATCH", at(k.first)+"?fieldManager=alice", body(k.first, k.one), "Content-Type", apply); got.code != http.StatusCreated {
				t.Fatalf("%d %s", got.code, got.Message)
			}
			alice := "alice Apply " + k.first
			if got := a.do("PATCH", at(k.second)+"?fieldManager=bob", `{"metadata":{"labels":{"x":"y"}}}`, "Content-Type", merge); got.code != http.StatusOK || !slices.Contains(got.managers(), alice) {
				t.Errorf("a label through %s: %d %s %q", k.second, got.code, got.Message, got.managers())
			}
			got := a.do("PATCH", at(k.second)+"?fieldManager=carol", body(k.second, k.other), "Content-Type", apply)
			if got.code != http.StatusConflict || !strings.Contains(got.Message, `conflict with "alice"`) {
				t.Errorf("a conflict through %s: %d %s", k.second, got.code, got.Message)
			}
			got = a.do("PATCH", at(k.second)+"?fieldManager=carol", body(k.second, k.two), "Content-Type", apply)
			if got.code != http.StatusOK || !slices.Contains(got.managers(), alice) || !slices.Contains(got.managers(), "carol Apply "+k.second) {
				t.Errorf("another part through %s: %d %s %q", k.second, got.code, got.Message, got.managers())
			}
			now := a.do("GET", at(k.second), "")
			if got := a.do("PUT", at(k.second)+"?fieldManager=dave", string(now.body)); got.code != http.StatusOK || !slices.Contains(got.managers(), alice) {
				t.Errorf("a PUT of what was read through %s: %d %s %q", k.second, got.code, got.Message, got.managers())
			}
			if got := a.do("PATCH", at(k.second)+"?fieldManager=carol&force=true", body(k.second, k.other), "Content-Type", apply); got.code != http.StatusOK || slices.Contains(got.managers(), alice) != k.owns {
				t.Errorf("forced through %s: %d %s %q", k.second, got.code, got.Message, got.managers())
			}
		})
	}
	// The owners of fields of the status are kept, too.
	if got := a.do("PATCH", path("v1")+"/s?fieldManager=alice", `{"apiVersion":"gears.example/v1","kind":"Thing","spec":{"a":"1"}}`, "Content-Type", apply); got.code != http.StatusCreated {
		t.Fatal(got.Message)
	}
	a.do("PATCH", path("v1")+"/s/status?fieldManager=status", `{"apiVersion":"gears.example/v1","kind":"Thing","status":{"s":"1"}}`, "Content-Type", apply)
	want := []string{"alice Apply gears.example/v1", "status Apply gears.example/v1 status"}
	got := a.do("PATCH", path("v2")+"/s/status?fieldManager=other", `{"apiVersion":"gears.example/v2","kind":"Thing","status":{"r":1}}`, "Content-Type", apply)
	if managers := got.managers(); !slices.Equal(managers, []string{want[0], "other Apply gears.example/v2 status", want[1]}) {
		t.Errorf("through the other version's status: %d %s %q", got.code, got.Message, managers)
	}
	if got := a.do("PATCH", path("v2")+"/s/status?fieldManager=third", `{"apiVersion":"gears.example/v2","kind":"Thing","status":{"s":"2"}}`, "Content-Type", apply); got.code != http.StatusConflict {
		t.Errorf("a conflict over the status: %d %s", got.code, got.Message)
	}
	// A version that is not served any more still has owners.
	a.do("PATCH", path("v2")+"/u?fieldManager=alice", `{"apiVersion":"gears.example/v2","kind":"Thing","spec":{"a":"1"}}`, "Content-Type", apply)
	if got := a.do("PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.gears.example", `[{"op":"replace","path":"/spec/versions/1/served","value":false}]`, "Content-Type", jsonPatch); got.code != http.StatusOK {
		t.Fatal(got.Message)
	}
	harness.Eventually(t, "v2 to be served no longer", func() bool { return a.do("GET", path("v2"), "").code == http.StatusNotFound })
	if got := a.do("PATCH", path("v1")+"/u?fieldManager=bob", `{"apiVersion":"gears.example/v1","kind":"Thing","spec":{"a":"2"}}`, "Content-Type", apply); got.code != http.StatusConflict {
		t.Errorf("a conflict with an owner through a version that is not served: %d %s", got.code, got.Message)
	}
}

// TestScaleWrites checks every write of a scale, of objects with replicas and of
// objects without.
func TestScaleWrites(t *testing.T) {
	a := start(t)
	const schema = `"spec":{"type":"object","properties":{"replicas":{"type":"integer","maximum":9},"size":{"type":"integer"},"x":{"type":"string"}}},"status":{"type":"object","properties":{"replicas":{"type":"integer"}}}`
	path := a.define("sized.example", version{name: "v1", schema: schema, replicas: ".spec.replicas"})("v1")
	custom := func(name, spec string) string {
		return `{"apiVersion":"sized.example/v1","kind":"Thing","metadata":{"name":"` + name + `"},"spec":` + spec + `}`
	}
	const scale = `"apiVersion":"autoscaling/v1","kind":"Scale"`
	const template = `"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"x"}]}}`
	workload := func(kind, name string) string {
		return `{"apiVersion":"apps/v1","kind":"` + kind + `","metadata":{"name":"` + name + `"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},` + template + `}}`
	}
	kinds := []struct {
		name, path, body, none string
	}{
		{"custom resource", path, custom("o", `{"replicas":2}`), custom("none", `{"x":"y"}`)},
		{"Deployment", "/apis/apps/v1/namespaces/default/deployments", workload("Deployment", "o"), ""},
		{"ReplicaSet", "/apis/apps/v1/namespaces/default/replicasets", workload("ReplicaSet", "o"), ""},
		{"StatefulSet", "/apis/apps/v1/namespaces/default/statefulsets", workload("StatefulSet", "o"), ""},
		{"ReplicationController", "/api/v1/namespaces/default/replicationcontrollers", `{"metadata":{"name":"o"},"spec":{"replicas":2,"selector":{"a":"b"},` + template + `}}`, ""},
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			a := &api{t, a.cfg, a.client, a.http}
			if got := a.do("POST", k.path, k.body); got.code != http.StatusCreated {
				t.Fatalf("%d %s", got.code, got.Message)
			}
			at, on := k.path+"/o/scale", k.path+"/o"
			for _, w := range []struct {
				name, method, kind, query, body string
				code                            int
				replicas                        int64
				manager                         string
			}{
				{"put", "PUT", "application/json", "", `{` + scale + `,"metadata":{"name":"o"},"spec":{"replicas":3}}`, 200, 3, "Update"},
				{"merge patch", "PATCH", merge, "", `{"spec":{"replicas":4}}`, 200, 4, "Update"},
				{"a harmless merge patch", "PATCH", merge, "", `{"metadata":{"labels":{"a":"b"}}}`, 200, 4, "Update"},
				{"strategic merge patch", "PATCH", strategic, "", `{"spec":{"replicas":5}}`, 200, 5, "Update"},
				{"JSON patch", "PATCH", jsonPatch, "", `[{"op":"replace","path":"/spec/replicas","value":6}]`, 200, 6, "Update"},
				{"apply, against the owner", "PATCH", apply, "?fieldManager=applier", `{` + scale + `,"metadata":{"name":"o"},"spec":{"replicas":7}}`, 409, 6, "Update"},
				{"apply, forced", "PATCH", apply, "?fieldManager=applier&force=true", `{` + scale + `,"metadata":{"name":"o"},"spec":{"replicas":7}}`, 200, 7, "Apply"},
				{"apply of nothing", "PATCH", apply, "?fieldManager=applier", `{` + scale + `,"metadata":{"name":"o"},"spec":{"much":7}}`, 500, 7, "Apply"},
				{"dry run", "PATCH", merge, "?dryRun=All", `{"spec":{"replicas":8}}`, 200, 7, "Apply"},
				{"below nothing", "PATCH", merge, "", `{"spec":{"replicas":-1}}`, 422, 7, "Apply"},
				{"another resourceVersion", "PUT", "application/json", "", `{` + scale + `,"metadata":{"name":"o","resourceVersion":"1"},"spec":{"replicas":3}}`, 409, 7, "Apply"},
				{"another namespace", "PUT", "application/json", "", `{` + scale + `,"metadata":{"name":"o","namespace":"other"},"spec":{"replicas":3}}`, 400, 7, "Apply"},
				{"a duplicate", "PATCH", merge, "?fieldValidation=Strict", `{"spec":{"replicas":3,"replicas":3}}`, 400, 7, "Apply"},
			} {
				got := a.do(w.method, at+w.query, w.body, "Content-Type", w.kind)
				if got.code != w.code {
					t.Errorf("%s: %d %s", w.name, got.code, got.body)
				}
				now := a.do("GET", on, "")
				if n := now.field("spec", "replicas"); n != w.replicas {
					t.Errorf("after %s: %v replicas, want %d", w.name, n, w.replicas)
				}
				owner := ""
				for _, m := range now.managers() {
					if strings.HasSuffix(m, " scale") {
						owner += m
					}
				}
				if strings.Count(owner, "scale") != 1 || !strings.Contains(owner, w.manager) {
					t.Errorf("after %s the replicas are of %q, want one by %s", w.name, owner, w.manager)
				}
			}
			if k.none == "" {
				return
			}
			if got := a.do("POST", k.path, k.none); got.code != http.StatusCreated {
				t.Fatalf("%d %s", got.code, got.Message)
			}
			at, on = k.path+"/none/scale", k.path+"/none"
			if got := a.do("GET", at, ""); got.code != http.StatusInternalServerError || got.Message != `Internal error occurred: the spec replicas field ".spec.replicas" does not exist` {
				t.Errorf("GET without replicas: %d %s", got.code, got.Message)
			}
			for _, w := range []struct{ name, method, kind, body string }{
				{"merge patch", "PATCH", merge, `{"metadata":{"labels":{"a":"b"}}}`},
				{"strategic merge patch", "PATCH", strategic, `{"metadata":{"labels":{"a":"b"}}}`},
				{"JSON patch", "PATCH", jsonPatch, `[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`},
				{"apply", "PATCH", apply, `{` + scale + `,"metadata":{"name":"none","labels":{"a":"b"}}}`},
			} {
				got := a.do(w.method, at+"?fieldManager=m", w.body, "Content-Type", w.kind)
				if got.code != http.StatusBadRequest || got.Message != `the spec replicas field ".spec.replicas" cannot be empty` {
					t.Errorf("%s without replicas: %d %s", w.name, got.code, got.Message)
				}
				if n := a.do("GET", on, "").field("spec", "replicas"); n != nil {
					t.Fatalf("%s wrote %v replicas", w.name, n)
				}
			}
			if got := a.do("PATCH", at+"?fieldManager=m&force=true", `{`+scale+`,"metadata":{"name":"none"},"spec":{"replicas":1}}`, "Content-Type", apply); got.code != http.StatusOK || got.field("spec", "replicas") != int64(1) {
				t.Errorf("the first replicas: %d %s", got.code, got.body)
			}
			if got := a.do("PATCH", at, `{"spec":{"replicas":10}}`, "Content-Type", merge); got.code != http.StatusUnprocessableEntity {
				t.Errorf("more than the schema allows: %d %s", got.code, got.Message)
			}
		})
	}
}

// TestCustomStatus checks that every way to write a status enforces its schema and
// its rules; a value that was invalid before may stay.
func TestCustomStatus(t *testing.T) {
	a := start(t)
	const schema = `"spec":{"type":"object","properties":{"max":{"type":"string"}}},"status":{"type":"object","required":["phase"],"properties":{
		"phase":{"type":"string","enum":["A","B"]},
		"max":{"type":"string","maxLength":3},"ip":{"type":"string","format":"ipv4"},"list":{"type":"array","items":{"type":"string"}},
		"n":{"type":"integer","minimum":1,"x-kubernetes-validations":[{"rule":"self != 7","message":"not 7"},{"rule":"self >= oldSelf","message":"may not fall"}]},
		"inner":{"type":"object","required":["x"],"properties":{"x":{"type":"integer"},"y":{"type":"string"}}},
		"set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}}}}`
	path := a.define("status.example", version{name: "v1", schema: schema})("v1")
	const head = `{"apiVersion":"status.example/v1","kind":"Thing","metadata":{"name":"o"}`
	if got := a.do("POST", path, head+`,"spec":{"max":"a"}}`); got.code != http.StatusCreated {
		t.Fatal(got.Message)
	}
	for _, c := range []struct {
		name, status string
		want         string // of the message; empty is accepted
	}{
		{"right", `{"phase":"A","max":"abc","ip":"192.0.2.1","list":["a"],"n":3,"inner":{"x":1},"set":["a","b"]}`, ""},
		{"required", `{"max":"a"}`, `status.phase: Required value`},
		{"enum", `{"phase":"C"}`, `status.phase: Unsupported value: "C"`},
		{"length", `{"phase":"A","max":"abcd"}`, `status.max: Too long`},
		{"format", `{"phase":"A","ip":"no"}`, `status.ip: Invalid value: "no"`},
		{"a string for a list", `{"phase":"A","list":"str"}`, `status.list: Invalid value: "string"`},
		{"a number for a string", `{"phase":"A","max":7}`, `status.max: Invalid value: "integer"`},
		{"minimum", `{"phase":"A","n":0}`, `status.n: Invalid value: 0`},
		{"rule", `{"phase":"A","n":7}`, `status.n: Invalid value: 7: not 7`},
		{"transition rule", `{"phase":"A","n":2}`, `status.n: Invalid value: 2: may not fall`},
		{"required within", `{"phase":"A","inner":{"y":"a"}}`, `status.inner.x: Required value`},
		{"a duplicate in a set", `{"phase":"A","set":["a","a"]}`, `status.set[1]: Duplicate value`},
		{"not an object", `"A"`, `status: Invalid value: "string"`},
	} {
		before := a.do("GET", path+"/o", "").field("metadata", "resourceVersion").(string)
		for _, w := range []struct{ how, method, kind, body string }{
			{"PUT", "PUT", "application/json", `{"apiVersion":"status.example/v1","kind":"Thing","metadata":{"name":"o","resourceVersion":"RV"},"status":` + c.status + `}`},
			{"JSON patch", "PATCH", jsonPatch, `[{"op":"add","path":"/status","value":` + c.status + `}]`},
			{"apply", "PATCH", apply, head + `,"status":` + c.status + `}`},
		} {
			rv := a.do("GET", path+"/o", "").field("metadata", "resourceVersion").(string)
			if w.how == "apply" && strings.HasPrefix(c.name, "required") {
				continue // what the other managers own stays
			}
			query := "?fieldManager=m"
			if w.how == "apply" {
				query += "&force=true"
			}
			got := a.do(w.method, path+"/o/status"+query, strings.ReplaceAll(w.body, "RV", rv), "Content-Type", w.kind)
			switch {
			case c.want == "" && got.code != http.StatusOK:
				t.Errorf("%s by %s: %d %s", c.name, w.how, got.code, got.Message)
			case c.want == "" || w.how == "apply" && got.code == http.StatusInternalServerError && strings.Contains(got.Message, "failed to create typed patch object"):
			case c.want == "status: Invalid value" && got.code >= 400:
			case got.code != http.StatusUnprocessableEntity || !strings.Contains(got.Message, c.want):
				t.Errorf("%s by %s: %d %s, want %s", c.name, w.how, got.code, got.Message, c.want)
			}
		}
		if now := a.do("GET", path+"/o", "").field("metadata", "resourceVersion").(string); c.want != "" && now != before {
			t.Fatalf("%s was written", c.name)
		}
	}
	for _, c := range []struct {
		status string
		code   int
	}{{`{"max":"zzzz"}`, 422}, {`{"ip":"no"}`, 422}, {`{"list":"str"}`, 422}, {`{"max":7}`, 422}, {`{"phase":null}`, 422}, {`{"max":"b"}`, 200}} {
		if got := a.do("PATCH", path+"/o/status", `{"status":`+c.status+`}`, "Content-Type", merge); got.code != c.code {
			t.Errorf("merge patch %s: %d %s", c.status, got.code, got.Message)
		}
	}
	// A schema that became stricter keeps the invalid values that it finds, and
	// refuses new ones.
	a.do("PATCH", path+"/o/status", `{"status":{"max":"abc"}}`, "Content-Type", merge)
	stricter := `[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/max/maxLength","value":2}]`
	if got := a.do("PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.status.example", stricter, "Content-Type", jsonPatch); got.code != http.StatusOK {
		t.Fatal(got.Message)
	}
	harness.Eventually(t, "the stricter schema to hold", func() bool {
		return a.do("PATCH", path+"/o/status?dryRun=All", `{"status":{"max":"xyz"}}`, "Content-Type", merge).code == http.StatusUnprocessableEntity
	})
	if got := a.do("PATCH", path+"/o/status", `{"status":{"phase":"B"}}`, "Content-Type", merge); got.code != http.StatusOK {
		t.Errorf("another field than the one that was wrong before: %d %s", got.code, got.Message)
	}
	if got := a.do("PATCH", path+"/o/status", `{"status":{"phase":"C"}}`, "Content-Type", merge); got.code != http.StatusUnprocessableEntity {
		t.Errorf("a new fault beside an old one: %d %s", got.code, got.Message)
	}
}
