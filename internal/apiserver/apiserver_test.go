package apiserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/testcluster"
)

// api is an API server and a client that sends the requests of a test.
type api struct {
	*testing.T
	cfg    *rest.Config
	client *kubernetes.Clientset
	http   *http.Client
}

func start(t *testing.T) *api {
	t.Helper()
	c := testcluster.Start(t, testcluster.WithoutControllers())
	hc, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	return &api{t, c.Config, kubernetes.NewForConfigOrDie(c.Config), hc}
}

type answer struct {
	code   int
	header http.Header
	body   []byte
	metav1.Status
}

func (a *api) do(method, path, body string, header ...string) answer {
	a.Helper()
	req, err := http.NewRequestWithContext(a.Context(), method, a.cfg.Host+path, strings.NewReader(body))
	if err != nil {
		a.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := a.http.Do(req)
	if err != nil {
		a.Fatal(err)
	}
	defer resp.Body.Close()
	out := answer{code: resp.StatusCode, header: resp.Header}
	if out.body, err = io.ReadAll(resp.Body); err != nil {
		a.Fatal(err)
	}
	_ = json.Unmarshal(out.body, &out.Status)
	return out
}

const configMaps = "/api/v1/namespaces/default/configmaps"

func TestBadInput(t *testing.T) {
	a := start(t)
	a.do("POST", configMaps, `{"metadata":{"name":"taken"}}`)
	const accounts, authorization = "/api/v1/namespaces/default/serviceaccounts", "/apis/authorization.k8s.io/v1/"
	a.do("POST", accounts, `{"metadata":{"name":"a"}}`)
	copies := "" // each of which is as large as all before
	for i := range 14 {
		copies += fmt.Sprintf(`,{"op":"copy","from":"/data","path":"/data/%d"}`, i)
	}
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		code                     int
		reason                   metav1.StatusReason
		message                  string
	}{
		{"malformed JSON", "POST", configMaps, `{"metadata":`, nil, 400, "BadRequest", "the object provided is unrecognized (must be of type ConfigMap)"},
		{"another kind", "POST", configMaps, `{"kind":"Secret","apiVersion":"v1"}`, nil, 400, "BadRequest", "cannot be handled as a ConfigMap"},
		{"another version", "POST", configMaps, `{"kind":"ConfigMap","apiVersion":"v2"}`, nil, 400, "BadRequest", ""},
		{"unknown field, strict", "POST", configMaps + "?fieldValidation=Strict", `{"metadata":{"name":"x"},"dada":{}}`, nil, 400, "BadRequest", `strict decoding error: unknown field "dada"`},
		{"duplicate field, strict", "POST", configMaps + "?fieldValidation=Strict", `{"metadata":{"name":"x"},"data":{},"data":{}}`, nil, 400, "BadRequest", `duplicate field "data"`},
		{"content type", "POST", configMaps, `x`, []string{"Content-Type", "text/plain"}, 415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media types include: application/json"},
		{"too large", "POST", configMaps, `{"data":{"k":"` + strings.Repeat("x", 3<<20) + `"}}`, nil, 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"},
		{"no name", "POST", configMaps, `{}`, nil, 422, "Invalid", "metadata.name: Required value: name or generateName is required"},
		{"bad name", "POST", configMaps, `{"metadata":{"name":"A_b"}}`, nil, 422, "Invalid", "a lowercase RFC 1123 subdomain must consist of"},
		{"taken", "POST", configMaps, `{"metadata":{"name":"taken"}}`, nil, 409, "AlreadyExists", `configmaps "taken" already exists`},
		{"another namespace", "POST", configMaps, `{"metadata":{"name":"x","namespace":"other"}}`, nil, 400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"},
		{"no such namespace", "POST", "/api/v1/namespaces/none/configmaps", `{"metadata":{"name":"x"}}`, nil, 404, "NotFound", `namespaces "none" not found`},
		{"no such object", "GET", configMaps + "/none", "", nil, 404, "NotFound", `configmaps "none" not found`},
		{"stale update", "PUT", configMaps + "/taken", `{"metadata":{"name":"taken","resourceVersion":"1"}}`, nil, 409, "Conflict", "the object has been modified; please apply your changes to the latest version and try again"},
		{"wrong name", "PUT", configMaps + "/taken", `{"metadata":{"name":"other"}}`, nil, 400, "BadRequest", "the name of the object (other) does not match the name on the URL (taken)"},
		{"label selector", "GET", configMaps + "?labelSelector=a+b+c", "", nil, 400, "BadRequest", "unable to parse requirement"},
		{"field selector", "GET", configMaps + "?fieldSelector=data.x%3Dy", "", nil, 400, "BadRequest", `"data.x" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		{"continue", "GET", configMaps + "?continue=xyz", "", nil, 400, "BadRequest", "continue key is not valid"},
		{"revision of the future", "GET", configMaps + "?resourceVersion=999999999", "", nil, 504, "Timeout", "Too large resource version"},
		{"dry run", "POST", configMaps + "?dryRun=Some", `{"metadata":{"name":"x"}}`, nil, 422, "Invalid", "dryRun"},
		{"patch type", "PATCH", configMaps + "/taken", `{}`, nil, 415, "UnsupportedMediaType", "application/json-patch+json"},
		{"JSON patch", "PATCH", configMaps + "/taken", `[{"op":"test","path":"/data/x","value":"y"}]`, []string{"Content-Type", "application/json-patch+json"}, 422, "Invalid", "the server rejected our request due to an error in our request"},
		{"JSON patch that copies copies", "PATCH", configMaps + "/taken", `[{"op":"add","path":"/data","value":{"k":"` + strings.Repeat("x", 1000) + `"}}` + copies + `]`,
			[]string{"Content-Type", "application/json-patch+json"}, 422, "Invalid", "the server rejected our request due to an error in our request"},
		{"method", "PUT", configMaps, `{}`, nil, 405, "MethodNotAllowed", "update is not supported on resources of kind"},
		{"accept", "GET", configMaps, "", []string{"Accept", "text/html"}, 406, "NotAcceptable", "only the following media types are accepted"},
		{"review of nobody", "POST", authorization + "subjectaccessreviews", `{"spec":{"resourceAttributes":{}}}`, nil, 422, "Invalid",
			`.authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified`},
		{"review elsewhere", "POST", authorization + "namespaces/default/localsubjectaccessreviews", `{"spec":{"user":"u","resourceAttributes":{"namespace":"x"}}}`, nil, 422, "Invalid",
			`spec.resourceAttributes.namespace: Invalid value: "x": must match metadata.namespace`},
		{"rules of nowhere", "POST", authorization + "selfsubjectrulesreviews", `{}`, nil, 400, "BadRequest", "no namespace on request"},
		{"review of no token", "POST", "/apis/authentication.k8s.io/v1/tokenreviews", `{}`, nil, 400, "BadRequest", "token is required for TokenReview in authentication"},
		{"token of another", "POST", accounts + "/a/token", `{"metadata":{"name":"b"}}`, nil, 422, "Invalid", `metadata.name: Invalid value: "b": must match the service account name if specified`},
		{"token of an earlier one", "POST", accounts + "/a/token", `{"metadata":{"uid":"1"}}`, nil, 409, "Conflict", "the UID in the token request (1) does not match the UID of the service account"},
		{"short token", "POST", accounts + "/a/token", `{"spec":{"expirationSeconds":60}}`, nil, 422, "Invalid",
			`TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes`},
		{"path", "GET", "/api/v1/namespaces/default/nothings", "", nil, 404, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := (&api{t, a.cfg, a.client, a.http}).do(c.method, c.path, c.body, c.header...)
			if got.code != c.code || got.Reason != c.reason || !strings.Contains(got.Message, c.message) {
				t.Errorf("%d %q %q, want %d %q ...%q...", got.code, got.Reason, got.Message, c.code, c.reason, c.message)
			}
		})
	}
	warned := a.do("POST", configMaps, `{"metadata":{"name":"warned"},"dada":{}}`)
	if warned.code != 201 || warned.header.Get("Warning") != `299 - "unknown field \"dada\""` {
		t.Errorf("%d, warning %q", warned.code, warned.header.Get("Warning"))
	}
}

// Selectors that are not understood widen what is reviewed, and the answer says so.
func TestReviewedSelectors(t *testing.T) {
	a := start(t)
	got := a.do("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", `{"metadata":{"uid":"1"},"spec":{"user":"u","groups":["system:masters"],"resourceAttributes":{"verb":"list","resource":"pods",
		"fieldSelector":{"rawSelector":"a,"},"labelSelector":{"requirements":[{"key":"a","operator":"Later"},{"key":"b","operator":"Exists"}]}}}}`)
	var review struct {
		Status struct {
			Allowed         bool
			EvaluationError string
		}
	}
	_ = json.Unmarshal(got.body, &review)
	const want = "spec.resourceAttributes.fieldSelector ignored due to parse error; spec.resourceAttributes.labelSelector partially ignored due to parse error"
	if got.code != http.StatusCreated || !review.Status.Allowed || review.Status.EvaluationError != want {
		t.Errorf("%d: %s", got.code, got.body)
	}
}

// Claims of devices: an administrator's access needs a label of the namespace,
// and parts of the status need permissions of their own.
func TestClaims(t *testing.T) {
	a := start(t)
	const group, name = "/apis/resource.k8s.io/v1/namespaces/", "/resourceclaims"
	admin := func(kind string) string {
		spec := `{"devices":{"requests":[{"name":"r","exactly":{"deviceClassName":"c","adminAccess":true}}]}}`
		if kind == "resourceclaimtemplates" {
			spec = `{"spec":` + spec + `}`
		}
		return `{"metadata":{"name":"admin"},"spec":` + spec + `}`
	}
	a.do("POST", "/api/v1/namespaces", `{"metadata":{"name":"admins","labels":{"resource.kubernetes.io/admin-access":"true"}}}`)
	for _, kind := range []string{"resourceclaims", "resourceclaimtemplates"} {
		const want = "spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
		if got := a.do("POST", group+"default/"+kind, admin(kind)); got.code != 422 || !strings.Contains(got.Message, want) {
			t.Errorf("%s: %d: %s", kind, got.code, got.body)
		}
		if got := a.do("POST", group+"admins/"+kind, admin(kind)); got.code != 201 {
			t.Errorf("%s where it is allowed: %d: %s", kind, got.code, got.body)
		}
	}
	a.do("POST", group+"default"+name, `{"metadata":{"name":"c"},"spec":{"devices":{"requests":[{"name":"r","exactly":{"deviceClassName":"c"}}]}}}`)
	allocate := func(admin bool, more string, header ...string) answer {
		allocation := fmt.Sprintf(`"allocation":{"nodeSelector":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}]}]},
			"devices":{"results":[{"request":"r","driver":"d","pool":"p","device":"a","adminAccess":%t}]}}`, admin)
		return a.do("PUT", group+"default"+name+"/c/status", `{"metadata":{"name":"c"},"status":{`+allocation+more+`}}`, header...)
	}
	const devices = `,"devices":[{"driver":"d","pool":"p","device":"a","data":{"a":1}}]`
	if got := allocate(true, ""); got.code != 422 || !strings.Contains(got.Message, "status.allocation.devices.results[0].adminAccess: Forbidden: admin access") {
		t.Errorf("an administrator's allocation: %d: %s", got.code, got.body)
	}
	// The driver may write the status of claims, and its own devices'.
	driver := []string{"Impersonate-User", "system:serviceaccount:default:driver", "Impersonate-Group", "system:authenticated", "Impersonate-Extra-authentication.kubernetes.io%2fnode-name", "n"}
	role := func(rules string) {
		a.do("DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterroles/driver", "")
		if got := a.do("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", `{"metadata":{"name":"driver"},"rules":[{"apiGroups":["resource.k8s.io"],"resources":["resourceclaims/status"],"verbs":["get","update"]}`+rules+`]}`); got.code != 201 {
			t.Fatalf("%s", got.body)
		}
	}
	role("")
	a.do("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{"metadata":{"name":"driver"},"roleRef":{"kind":"ClusterRole","name":"driver"},"subjects":[{"kind":"ServiceAccount","namespace":"default","name":"driver"}]}`)
	expect := func(what string, code int, message string, do func() answer) {
		t.Helper()
		var got answer
		harness.Succeeds(t, what, func() error {
			if got = do(); got.code != code || !strings.Contains(got.Message, message) {
				return fmt.Errorf("%d: %s", got.code, got.body)
			}
			return nil
		})
	}
	expect("a driver that binds", 422, `status: Forbidden: changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="update" permission: resourceclaims.resource.k8s.io is forbidden`,
		func() answer { return allocate(false, "", driver...) })
	if got := allocate(false, ""); got.code != 200 {
		t.Errorf("an allocation: %d: %s", got.code, got.body)
	}
	expect("a driver that reports", 422, `status.devices: Forbidden: changing status.devices requires resource="resourceclaims/driver", verb="[associated-node:update arbitrary-node:update]" permission: resourceclaims.resource.k8s.io "d" is forbidden`,
		func() answer { return allocate(false, devices, driver...) })
	role(`,{"apiGroups":["resource.k8s.io"],"resources":["resourceclaims/driver"],"resourceNames":["d"],"verbs":["associated-node:update"]}`)
	expect("a driver that may report", 200, "", func() answer { return allocate(false, devices, driver...) })
}

func TestCredentials(t *testing.T) {
	a := start(t)
	anonymous := rest.AnonymousClientConfig(a.cfg)
	client := kubernetes.NewForConfigOrDie(anonymous)
	_, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	want := `pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "default"`
	if !apierrors.IsForbidden(err) || err.Error() != want {
		t.Errorf("without credentials: %v", err)
	}
	if _, err := client.Discovery().ServerVersion(); err != nil {
		t.Errorf("anyone may ask for the version: %v", err)
	}
	const secret = "/api/v1/namespaces/default/secrets/%3Cb%3E"
	if got := a.do("GET", secret, "", "Impersonate-User", "<i>"); got.code != http.StatusForbidden || got.header.Get("X-Content-Type-Options") != "nosniff" ||
		!strings.Contains(got.Message, `User "&lt;i&gt;" cannot get resource "secrets"`) {
		t.Errorf("a refusal that names what is asked for is %d, %q, %q", got.code, got.header, got.Message)
	}
	wrong := rest.CopyConfig(anonymous)
	wrong.BearerToken = "not.a.token"
	if _, err := kubernetes.NewForConfigOrDie(wrong).CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("with a wrong token: %v", err)
	}
	bob := rest.CopyConfig(a.cfg)
	bob.Impersonate = rest.ImpersonationConfig{UserName: "bob"}
	if _, err := kubernetes.NewForConfigOrDie(bob).CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("as bob: %v", err)
	}
}

func TestListsAndWatches(t *testing.T) {
	a := start(t)
	ctx := t.Context()
	cms := a.client.CoreV1().ConfigMaps("default")
	for i := range 5 {
		if _, err := cms.Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%d", i), Labels: map[string]string{"even": fmt.Sprint(i%2 == 0)}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := cms.List(ctx, metav1.ListOptions{Limit: 2})
	if err != nil || len(page.Items) != 2 || page.Continue == "" || *page.RemainingItemCount != 3 {
		t.Fatalf("first page: %+v, %v", page.ListMeta, err)
	}
	if err := cms.Delete(ctx, "c3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	rest, err := cms.List(ctx, metav1.ListOptions{Limit: 10, Continue: page.Continue})
	if err != nil || len(rest.Items) != 3 || rest.ResourceVersion != page.ResourceVersion {
		t.Errorf("the other pages are of the first one's revision: %d, %v", len(rest.Items), err)
	}
	even, err := cms.List(ctx, metav1.ListOptions{LabelSelector: "even=true"})
	if err != nil || len(even.Items) != 3 {
		t.Errorf("selected: %d, %v", len(even.Items), err)
	}
	w, err := cms.Watch(ctx, metav1.ListOptions{LabelSelector: "even=true", SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	next := func(want watch.EventType, name string) *v1.ConfigMap {
		t.Helper()
		ev := <-w.ResultChan()
		cm, ok := ev.Object.(*v1.ConfigMap)
		if !ok || ev.Type != want || cm.Name != name {
			t.Fatalf("%s %+v, want %s %s", ev.Type, ev.Object, want, name)
		}
		return cm
	}
	next(watch.Added, "c0")
	next(watch.Added, "c2")
	next(watch.Added, "c4")
	if b := next(watch.Bookmark, ""); b.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("bookmark: %+v", b.ObjectMeta)
	}
	for name, label := range map[string]string{"c0": "false"} {
		if _, err := cms.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"labels":{"even":"`+label+`"}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	next(watch.Deleted, "c0") // out of the selection
	if err := cms.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "even=true"}); err != nil {
		t.Fatal(err)
	}
	next(watch.Deleted, "c2")
	next(watch.Deleted, "c4")
}

func TestApply(t *testing.T) {
	a := start(t)
	ctx := t.Context()
	cms := a.client.CoreV1().ConfigMaps("default")
	apply := func(manager, value string, force bool) (*v1.ConfigMap, error) {
		return cms.Patch(ctx, "applied", types.ApplyYAMLPatchType, []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {k: "+value+"}\n"),
			metav1.PatchOptions{FieldManager: manager, Force: &force})
	}
	if _, err := apply("one", "a", false); err != nil {
		t.Fatal(err)
	}
	_, err := apply("two", "b", false)
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "one": .data.k`) {
		t.Errorf("another manager: %v", err)
	}
	cm, err := apply("two", "b", true)
	if err != nil || cm.Data["k"] != "b" || len(cm.ManagedFields) != 1 || cm.ManagedFields[0].Manager != "two" {
		t.Errorf("forced: %+v, %v", cm, err)
	}
	again, err := apply("two", "b", false)
	if err != nil || again.ResourceVersion != cm.ResourceVersion {
		t.Errorf("an apply that changes nothing writes nothing: %v, %v", again, err)
	}
}

func TestPatches(t *testing.T) {
	a := start(t)
	ctx := t.Context()
	pods := a.client.CoreV1().Pods("default")
	if _, err := a.client.CoreV1().ServiceAccounts("default").Create(ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a", Image: "x"}, {Name: "b", Image: "x"}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := pods.Patch(ctx, "p", types.StrategicMergePatchType, []byte(`{"spec":{"containers":[{"name":"b","image":"y"}]}}`), metav1.PatchOptions{})
	if err != nil || p.Spec.Containers[0].Image != "x" || p.Spec.Containers[1].Image != "y" || p.Generation != 2 {
		t.Errorf("strategic: %v, %v", p, err)
	}
	p, err = pods.Patch(ctx, "p", types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/containers/0/image","value":"z"}]`), metav1.PatchOptions{})
	if err != nil || p.Spec.Containers[0].Image != "z" {
		t.Errorf("JSON: %v, %v", p, err)
	}
	_, err = pods.Patch(ctx, "p", types.MergePatchType, []byte(`{"spec":{"nodeName":"n"}}`), metav1.PatchOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "pod updates may not change fields other than") {
		t.Errorf("an immutable field: %v", err)
	}
	dry, err := pods.Patch(ctx, "p", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || dry.Labels["a"] != "b" {
		t.Errorf("dry run: %v, %v", dry, err)
	}
	if now, err := pods.Get(ctx, "p", metav1.GetOptions{}); err != nil || now.Labels["a"] != "" {
		t.Errorf("a dry run wrote: %v, %v", now, err)
	}
}

func TestForms(t *testing.T) {
	a := start(t)
	a.do("POST", configMaps, "metadata: {name: form}\ndata: {k: v}\n", "Content-Type", "application/yaml")
	for accept, want := range map[string]string{
		"application/json":                                             `{"kind":"ConfigMap","apiVersion":"v1"`,
		"application/yaml":                                             "kind: ConfigMap",
		"application/vnd.kubernetes.protobuf":                          "k8s\x00",
		"application/cbor":                                             "\xd9\xd9\xf7",
		"application/json;as=Table;g=meta.k8s.io;v=v1":                 `"kind":"Table"`,
		"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1": `"kind":"PartialObjectMetadata"`,
	} {
		got := a.do("GET", configMaps+"/form", "", "Accept", accept)
		if got.code != 200 || !bytes.Contains(got.body, []byte(want)) {
			t.Errorf("%s: %d %.80q", accept, got.code, got.body)
		}
		if list := a.do("GET", configMaps, "", "Accept", strings.Replace(accept, "as=PartialObjectMetadata;", "as=PartialObjectMetadataList;", 1)); list.code != 200 || len(list.body) == 0 {
			t.Errorf("list as %s: %d", accept, list.code)
		}
	}
}

func TestDiscovery(t *testing.T) {
	a := start(t)
	groups, lists, err := a.client.Discovery().ServerGroupsAndResources()
	if err != nil || len(groups) < 15 || len(lists) < 15 {
		t.Fatalf("%d groups, %d lists, %v", len(groups), len(lists), err)
	}
	legacy := discovery.NewDiscoveryClientForConfigOrDie(a.cfg)
	legacy.UseLegacyDiscovery = true
	_, old, err := legacy.ServerGroupsAndResources()
	if err != nil || len(old) != len(lists) {
		t.Errorf("classic discovery: %d lists, %v", len(old), err)
	}
	doc, err := a.client.Discovery().OpenAPISchema()
	if err != nil || len(doc.Definitions.AdditionalProperties) < 300 {
		t.Errorf("OpenAPI v2: %v", err)
	}
	paths, err := a.client.Discovery().OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := paths["apis/apps/v1"].Schema("application/json")
	if err != nil || !bytes.Contains(spec, []byte(`"io.k8s.api.apps.v1.Deployment"`)) || !bytes.Contains(spec, []byte(`"fieldValidation"`)) {
		t.Errorf("OpenAPI v3 of apps/v1: %v", err)
	}
	for _, path := range []string{"/healthz", "/livez", "/readyz", "/version", "/metrics", "/readyz?verbose"} {
		if got := a.do("GET", path, ""); got.code != 200 {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
	}
}

func TestFinalizers(t *testing.T) {
	a := start(t)
	ctx := t.Context()
	cms := a.client.CoreV1().ConfigMaps("default")
	if _, err := cms.Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "held-", Finalizers: []string{"example.com/hold"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	l, err := cms.List(ctx, metav1.ListOptions{})
	if err != nil || len(l.Items) != 1 || !strings.HasPrefix(l.Items[0].Name, "held-") {
		t.Fatalf("%v, %v", l, err)
	}
	name := l.Items[0].Name
	uid := types.UID("another")
	if err := cms.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); !apierrors.IsConflict(err) {
		t.Errorf("a deletion of another UID: %v", err)
	}
	if err := cms.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	held, err := cms.Get(ctx, name, metav1.GetOptions{})
	if err != nil || held.DeletionTimestamp == nil {
		t.Fatalf("held: %v, %v", held, err)
	}
	held.Finalizers = nil
	if _, err := cms.Update(ctx, held, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cms.Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after the last finalizer: %v", err)
	}
}
