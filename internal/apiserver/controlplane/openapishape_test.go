package controlplane

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// document reads an OpenAPI document.
func document(t *testing.T, c *Instance, path string) map[string]any {
	t.Helper()
	w := ask(c, "GET", path, "")
	var doc map[string]any
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// at returns the value in v at a path of names, separated by spaces.
func at(v any, path string) any {
	for name := range strings.FieldsSeq(path) {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// named returns the parameters by their names.
func named(v any) map[string]any {
	all := map[string]any{}
	list, _ := v.([]any)
	for _, p := range list {
		if name, ok := at(p, "name").(string); ok {
			all[name] = p
		}
	}
	return all
}

// TestOpenAPIShape checks that the OpenAPI documents have the same types and
// operations as upstream's, with the same attributes.
func TestOpenAPIShape(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	type facts map[string]string // a path in the document to what is there, in JSON
	check := func(name string, doc any, want facts) {
		t.Helper()
		for path, in := range want {
			var expected any
			if err := json.Unmarshal([]byte(in), &expected); err != nil {
				t.Fatal(in)
			}
			if got := at(doc, path); !reflect.DeepEqual(got, expected) {
				b, _ := json.Marshal(got)
				t.Errorf("%s: %s is\n%s, want\n%s", name, path, b, in)
			}
		}
	}

	core := document(t, c, "/openapi/v3/api/v1")
	check("api/v1", core, facts{
		"openapi": `"3.0.0"`, "info title": `"Kubernetes"`, "info version": `"1.37"`,
		"components securitySchemes BearerToken": `{"type":"apiKey","description":"Bearer Token authentication","name":"authorization","in":"header"}`,
	})
	check("types of v3", at(core, "components schemas"), facts{
		"io.k8s.api.core.v1.PodSpec required":                                                `["containers"]`,
		"io.k8s.api.core.v1.PodSpec properties containers x-kubernetes-list-type":            `"map"`,
		"io.k8s.api.core.v1.PodSpec properties containers x-kubernetes-list-map-keys":        `["name"]`,
		"io.k8s.api.core.v1.PodSpec properties containers x-kubernetes-patch-merge-key":      `"name"`,
		"io.k8s.api.core.v1.PodSpec properties containers x-kubernetes-patch-strategy":       `"merge"`,
		"io.k8s.api.core.v1.PodSpec properties volumes x-kubernetes-patch-strategy":          `"merge,retainKeys"`,
		"io.k8s.api.core.v1.PodSpec properties nodeSelector x-kubernetes-map-type":           `"atomic"`,
		"io.k8s.api.core.v1.PodSpec properties restartPolicy enum":                           `["Always","Never","OnFailure"]`,
		"io.k8s.api.core.v1.PodSpec properties terminationGracePeriodSeconds format":         `"int64"`,
		"io.k8s.api.core.v1.Container properties ports x-kubernetes-list-map-keys":           `["containerPort","protocol"]`,
		"io.k8s.api.core.v1.ContainerPort required":                                          `["containerPort"]`,
		"io.k8s.api.core.v1.ContainerPort properties containerPort default":                  `0`,
		"io.k8s.api.core.v1.ContainerPort properties containerPort format":                   `"int32"`,
		"io.k8s.api.core.v1.ContainerPort properties protocol default":                       `"TCP"`,
		"io.k8s.api.core.v1.ContainerPort properties protocol enum":                          `["SCTP","TCP","UDP"]`,
		"io.k8s.api.core.v1.Secret properties data additionalProperties":                     `{"type":"string","format":"byte"}`,
		"io.k8s.api.core.v1.Pod x-kubernetes-group-version-kind":                             `[{"group":"","kind":"Pod","version":"v1"}]`,
		"io.k8s.api.core.v1.Pod required":                                                    `null`,
		"io.k8s.api.core.v1.Pod properties spec default":                                     `{}`,
		"io.k8s.api.core.v1.Pod properties spec allOf":                                       `[{"$ref":"#/components/schemas/io.k8s.api.core.v1.PodSpec"}]`,
		"io.k8s.api.core.v1.PodList required":                                                `["items"]`,
		"io.k8s.api.core.v1.ObjectReference x-kubernetes-map-type":                           `"atomic"`,
		"io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta required":                           `null`,
		"io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta properties finalizers":              `{"type":"array","items":{"type":"string"},"x-kubernetes-list-type":"set","x-kubernetes-patch-strategy":"merge","description":` + quoted(t, at(core, "components schemas io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta properties finalizers description")) + `}`,
		"io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference required":                       `["apiVersion","kind","name","uid"]`,
		"io.k8s.apimachinery.pkg.apis.meta.v1.Time format":                                   `"date-time"`,
		"io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions x-kubernetes-group-version-kind": `[{"group":"","kind":"DeleteOptions","version":"v1"}]`,
		"io.k8s.apimachinery.pkg.util.intstr.IntOrString oneOf":                              `[{"type":"integer"},{"type":"string"}]`,
		"io.k8s.apimachinery.pkg.util.intstr.IntOrString format":                             `"int-or-string"`,
		"io.k8s.apimachinery.pkg.api.resource.Quantity oneOf":                                `[{"type":"string"},{"type":"number"}]`,
	})
	pods := at(core, "paths /api/v1/namespaces/{namespace}/pods")
	check("pods", pods, facts{
		"get operationId":                             `"listCoreV1NamespacedPod"`,
		"get description":                             `"list or watch objects of kind Pod"`,
		"get tags":                                    `["core_v1"]`,
		"get x-kubernetes-action":                     `"list"`,
		"get x-kubernetes-group-version-kind":         `{"group":"","kind":"Pod","version":"v1"}`,
		"get responses 401":                           `{"description":"Unauthorized"}`,
		"get responses 200 content application/yaml":  `{"schema":{"$ref":"#/components/schemas/io.k8s.api.core.v1.PodList"}}`,
		"post operationId":                            `"createCoreV1NamespacedPod"`,
		"post description":                            `"create a Pod"`,
		"post requestBody":                            `{"content":{"*/*":{"schema":{"$ref":"#/components/schemas/io.k8s.api.core.v1.Pod"}}},"required":true}`,
		"post responses 202 description":              `"Accepted"`,
		"post responses 201 content application/json": `{"schema":{"$ref":"#/components/schemas/io.k8s.api.core.v1.Pod"}}`,
		"delete operationId":                          `"deleteCoreV1CollectionNamespacedPod"`,
		"delete requestBody":                          `{"content":{"*/*":{"schema":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"}}}}`,
	})
	for name, forms := range map[string]int{"application/json;stream=watch": 1, "application/vnd.kubernetes.protobuf;stream=watch": 1, "application/vnd.kubernetes.protobuf": 1} {
		content, _ := at(pods, "get responses 200 content").(map[string]any)
		if _, ok := content[name]; !ok || len(content) != 4+forms {
			t.Errorf("a list is given in the forms %v", content)
		}
	}
	if shared := named(at(pods, "parameters")); len(shared) != 2 || shared["namespace"] == nil || shared["pretty"] == nil {
		t.Errorf("parameters of all operations on pods: %v", shared)
	}
	if own := named(at(pods, "get parameters")); own["sendInitialEvents"] == nil || own["labelSelector"] == nil || at(own["limit"], "schema type") != "integer" || at(own["watch"], "description") == nil {
		t.Errorf("parameters of a list: %v", own)
	}
	if own := named(at(pods, "delete parameters")); own["watch"] != nil || own["allowWatchBookmarks"] != nil || own["gracePeriodSeconds"] == nil || own["continue"] == nil {
		t.Errorf("parameters of the deletion of a collection: %v", own)
	}
	check("a pod", at(core, "paths /api/v1/namespaces/{namespace}/pods/{name}"), facts{
		"patch operationId": `"patchCoreV1NamespacedPod"`,
		"patch requestBody content application/apply-patch+yaml": `{"schema":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}}`,
		"patch responses 201 description":                        `"Created"`,
		"delete responses 200 content application/json":          `{"schema":{"$ref":"#/components/schemas/io.k8s.api.core.v1.Pod"}}`,
		"put description": `"replace the specified Pod"`,
	})
	check("paths of api/v1", at(core, "paths"), facts{
		"/api/v1/ get operationId":                                                                              `"getCoreV1APIResources"`,
		"/api/v1/pods get operationId":                                                                          `"listCoreV1PodForAllNamespaces"`,
		"/api/v1/watch/pods get operationId":                                                                    `"watchCoreV1PodListForAllNamespaces"`,
		"/api/v1/watch/namespaces/{namespace}/pods get x-kubernetes-action":                                     `"watchlist"`,
		"/api/v1/watch/namespaces/{namespace}/pods/{name} get operationId":                                      `"watchCoreV1NamespacedPod"`,
		"/api/v1/namespaces/{namespace}/pods/{name}/log get responses 200 content text/plain":                   `{"schema":{"type":"string"}}`,
		"/api/v1/namespaces/{namespace}/pods/{name}/exec post responses 200 content */*":                        `{"schema":{"type":"string"}}`,
		"/api/v1/namespaces/{namespace}/pods/{name}/exec post x-kubernetes-group-version-kind":                  `{"group":"","kind":"PodExecOptions","version":"v1"}`,
		"/api/v1/namespaces/{namespace}/pods/{name}/eviction post x-kubernetes-group-version-kind":              `{"group":"policy","kind":"Eviction","version":"v1"}`,
		"/api/v1/namespaces/{namespace}/pods/{name}/eviction post description":                                  `"create eviction of a Pod"`,
		"/api/v1/namespaces/{namespace}/pods/{name}/proxy/{path} options operationId":                           `"connectCoreV1OptionsNamespacedPodProxyWithPath"`,
		"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token post operationId":                          `"createCoreV1NamespacedServiceAccountToken"`,
		"/api/v1/namespaces/{namespace}/replicationcontrollers/{name}/scale put requestBody content */* schema": `{"$ref":"#/components/schemas/io.k8s.api.autoscaling.v1.Scale"}`,
		"/api/v1/namespaces/{name}/finalize put operationId":                                                    `"replaceCoreV1NamespaceFinalize"`,
		"/api/v1/nodes delete operationId":                                                                      `"deleteCoreV1CollectionNode"`,
		"/api/v1/componentstatuses get description":                                                             `"list objects of kind ComponentStatus"`,
	})
	for sub, kind := range map[string]string{"": "Pod", "/status": "Pod", "/binding": "Binding", "/exec": "PodExecOptions"} {
		if name := named(at(core, "paths /api/v1/namespaces/{namespace}/pods/{name}"+sub+" parameters"))["name"]; at(name, "description") != "name of the "+kind {
			t.Errorf("of a pod's %q, the name is that of %v", sub, name)
		}
	}
	if exec := named(at(core, "paths /api/v1/namespaces/{namespace}/pods/{name}/exec parameters")); exec["command"] == nil || exec["tty"] == nil || exec["pretty"] != nil {
		t.Errorf("parameters of exec: %v", exec)
	}

	check("flowcontrol", document(t, c, "/openapi/v3/apis/flowcontrol.apiserver.k8s.io/v1"), facts{
		"components schemas io.k8s.api.flowcontrol.v1.LimitResponse x-kubernetes-unions":                     `[{"discriminator":"type","fields-to-discriminateBy":{"queuing":"Queuing"}}]`,
		"components schemas io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent x-kubernetes-group-version-kind": `[{"group":"","kind":"WatchEvent","version":"v1"},{"group":"flowcontrol.apiserver.k8s.io","kind":"WatchEvent","version":"v1"}]`,
	})
	for path, id := range map[string]string{
		"api": "getCoreAPIVersions", "apis": "getAPIVersions", "apis/rbac.authorization.k8s.io": "getRbacAuthorizationAPIGroup", "version": "getCodeVersion", "logs": "logFileListHandler",
		".well-known/openid-configuration": "getServiceAccountIssuerOpenIDConfiguration", "openid/v1/jwks": "getServiceAccountIssuerOpenIDKeyset",
	} {
		if got := at(document(t, c, "/openapi/v3/"+path), "paths /"+path+"/ get operationId"); got != id {
			t.Errorf("openapi/v3/%s has %v, want %s", path, got, id)
		}
	}

	v2 := document(t, c, "/openapi/v2")
	check("v2", v2, facts{
		"swagger": `"2.0"`, "security": `[{"BearerToken":[]}]`, "info": `{"title":"Kubernetes","version":"1.37"}`,
		"securityDefinitions BearerToken type":                                                        `"apiKey"`,
		"definitions io.k8s.apimachinery.pkg.util.intstr.IntOrString type":                            `"string"`,
		"definitions io.k8s.apimachinery.pkg.util.intstr.IntOrString format":                          `"int-or-string"`,
		"definitions io.k8s.apimachinery.pkg.api.resource.Quantity type":                              `"string"`,
		"definitions io.k8s.api.core.v1.Pod properties spec $ref":                                     `"#/definitions/io.k8s.api.core.v1.PodSpec"`,
		"definitions io.k8s.api.core.v1.Pod properties spec default":                                  `null`,
		"paths /api/v1/namespaces/{namespace}/pods get produces":                                      `["application/json","application/yaml","application/vnd.kubernetes.protobuf","application/json;stream=watch","application/vnd.kubernetes.protobuf;stream=watch"]`,
		"paths /api/v1/namespaces/{namespace}/pods get consumes":                                      `["*/*"]`,
		"paths /api/v1/namespaces/{namespace}/pods get schemes":                                       `["https"]`,
		"paths /apis/apps/v1/namespaces/{namespace}/deployments/{name} patch consumes":                `["application/json-patch+json","application/merge-patch+json","application/strategic-merge-patch+json","application/apply-patch+yaml"]`,
		"paths /apis/apps/v1/namespaces/{namespace}/deployments/{name} get responses 200 schema $ref": `"#/definitions/io.k8s.api.apps.v1.Deployment"`,
		"paths /apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}/status get operationId": `"readApiextensionsV1CustomResourceDefinitionStatus"`,
	})
	if all, _ := at(v2, "parameters").(map[string]any); len(all) < 20 {
		t.Errorf("%d parameters are shared", len(all))
	}
	if kinds, _ := at(v2, "definitions io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent x-kubernetes-group-version-kind").([]any); len(kinds) < 50 {
		t.Errorf("in v2 events are of %d versions", len(kinds))
	}
}

func quoted(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil || v == nil {
		t.Fatalf("%v: %v", v, err)
	}
	return string(b)
}
