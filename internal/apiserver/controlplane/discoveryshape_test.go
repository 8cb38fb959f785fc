package controlplane

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/test/harness"
)

// TestDiscoveryShape checks that discovery has the same fields and values for each
// resource as upstream's.
func TestDiscoveryShape(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	for _, crd := range []string{definition(7), strings.ReplaceAll(definition(8), "group8.", "agroup.")} {
		if r := ask(c, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd); r.Code != http.StatusCreated {
			t.Fatal(r.Body)
		}
	}
	for _, path := range []string{"/apis/group7.example.com/v1/things7", "/apis/agroup.example.com/v1/things8"} {
		harness.Eventually(t, "the definition to be served", func() bool { return ask(c, "GET", path, "").Code == http.StatusOK })
	}
	read := func(path string) any {
		t.Helper()
		req := httptest.NewRequest("GET", path, nil)
		if path == "/apis" || path == "/api" {
			req.Header.Set("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
		}
		w := httptest.NewRecorder()
		c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), inprocess.Admin)))
		var v any
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		return v
	}
	// find looks for the one in a list that has this value of key.
	find := func(list any, key, value string) any {
		all, _ := list.([]any)
		for _, v := range all {
			if at(v, key) == value {
				return v
			}
		}
		return nil
	}
	is := func(what string, got any, want string) {
		t.Helper()
		var expected any
		if err := json.Unmarshal([]byte(want), &expected); err != nil {
			t.Fatal(want)
		}
		if !reflect.DeepEqual(got, expected) {
			b, _ := json.Marshal(got)
			t.Errorf("%s is\n%s, want\n%s", what, b, want)
		}
	}
	classic := func(gv, name string) any {
		root := "/apis/"
		if gv == "v1" {
			root = "/api/"
		}
		return find(at(read(root+gv), "resources"), "name", name)
	}
	const all = `["create","delete","deletecollection","get","list","patch","update","watch"]`
	is("deployments", classic("apps/v1", "deployments"), `{"name":"deployments","singularName":"deployment","namespaced":true,"kind":"Deployment","verbs":`+all+`,"shortNames":["deploy"],"categories":["all"],"storageVersionHash":"8aSe+NMegvE="}`)
	is("their scale", classic("apps/v1", "deployments/scale"), `{"name":"deployments/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale","verbs":["get","patch","update"]}`)
	is("namespaces", classic("v1", "namespaces"), `{"name":"namespaces","singularName":"namespace","namespaced":false,"kind":"Namespace","verbs":["create","delete","get","list","patch","update","watch"],"shortNames":["ns"],"storageVersionHash":"Q3oi5N2YM8M="}`)
	is("the log of pods", classic("v1", "pods/log"), `{"name":"pods/log","singularName":"","namespaced":true,"kind":"Pod","verbs":["get"]}`)
	is("their eviction", classic("v1", "pods/eviction"), `{"name":"pods/eviction","singularName":"","namespaced":true,"group":"policy","version":"v1","kind":"Eviction","verbs":["create"]}`)
	is("things", classic("group7.example.com/v1", "things7"), `{"name":"things7","singularName":"thing7","namespaced":true,"kind":"Thing7","verbs":["delete","deletecollection","get","list","patch","create","update","watch"],"storageVersionHash":`+
		quoted(t, at(classic("group7.example.com/v1", "things7"), "storageVersionHash"))+`}`)

	index, _ := at(read("/"), "paths").([]any)
	for _, path := range []string{"/.well-known/openid-configuration", "/apis/apps/v1", "/healthz/etcd", "/livez/ping", "/logs", "/openid/v1/jwks", "/readyz/shutdown", "/version"} {
		if !slices.Contains(index, any(path)) {
			t.Errorf("the index lacks %s", path)
		}
	}

	groups, _ := at(read("/apis"), "items").([]any)
	aggregated := func(group, resource string) any {
		versions, _ := at(find(groups, "metadata name", group), "versions").([]any)
		return find(at(versions[0], "resources"), "resource", resource)
	}
	is("deployments, aggregated", aggregated("apps", "deployments"), `{"resource":"deployments","responseKind":{"group":"","version":"","kind":"Deployment"},"scope":"Namespaced","singularResource":"deployment","verbs":`+all+`,"shortNames":["deploy"],"categories":["all"],"subresources":[
{"subresource":"scale","responseKind":{"group":"autoscaling","version":"v1","kind":"Scale"},"verbs":["get","patch","update"]},{"subresource":"status","responseKind":{"group":"","version":"","kind":"Deployment"},"verbs":["get","patch","update"]}]}`)
	is("things, aggregated", aggregated("group7.example.com", "things7"), `{"resource":"things7","responseKind":{"group":"group7.example.com","version":"v1","kind":"Thing7"},"scope":"Namespaced","singularResource":"thing7","verbs":["delete","deletecollection","get","list","patch","create","update","watch"],"subresources":[
{"subresource":"status","responseKind":{"group":"group7.example.com","version":"v1","kind":"Thing7"},"verbs":["get","patch","update"]}]}`)
	var order []string
	for _, g := range groups {
		order = append(order, at(g, "metadata name").(string))
	}
	if want := strings.Fields(`apiregistration.k8s.io apps events.k8s.io authentication.k8s.io authorization.k8s.io autoscaling batch certificates.k8s.io networking.k8s.io policy rbac.authorization.k8s.io
		storage.k8s.io admissionregistration.k8s.io apiextensions.k8s.io scheduling.k8s.io coordination.k8s.io node.k8s.io discovery.k8s.io flowcontrol.apiserver.k8s.io resource.k8s.io storagemigration.k8s.io
		agroup.example.com group7.example.com metrics.k8s.io`); !slices.Equal(order, want) {
		t.Errorf("the groups are %v", order)
	}
}
