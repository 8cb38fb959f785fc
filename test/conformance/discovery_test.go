package conformance

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// raw sends a GET with that Accept header, and returns the body, its media type
// and the code.
func (t *T) raw(path, accept string) ([]byte, string, int) {
	t.Helper()
	hc := got[*http.Client](t)(rest.HTTPClientFor(t.Config))
	req := got[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSuffix(t.Config.Host, "/")+path, nil))
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp := got[*http.Response](t)(hc.Do(req))
	defer resp.Body.Close()
	var b strings.Builder
	buf := make([]byte, 64<<10)
	for {
		n, err := resp.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return []byte(b.String()), resp.Header.Get("Content-Type"), resp.StatusCode
}

// aggregatedResources returns the kinds of each resource of each version that the
// aggregated discovery has.
func (t *T) aggregatedResources() map[schema.GroupVersionResource]string {
	t.Helper()
	out := map[schema.GroupVersionResource]string{}
	for _, path := range []string{"/api", "/apis"} {
		b, kind, code := t.raw(path, aggregated)
		if code != http.StatusOK || !strings.Contains(kind, "as=APIGroupDiscoveryList") {
			t.Fatalf("%s answers %d %s", path, code, kind)
		}
		var list apidiscoveryv2.APIGroupDiscoveryList
		t.must(json.Unmarshal(b, &list))
		for _, g := range list.Items {
			for _, v := range g.Versions {
				for _, r := range v.Resources {
					out[schema.GroupVersionResource{Group: g.Name, Version: v.Version, Resource: r.Resource}] = r.ResponseKind.Kind
				}
			}
		}
	}
	return out
}

func (t *T) coreIsThere(all map[schema.GroupVersionResource]string) {
	t.Helper()
	for gvr, kind := range map[schema.GroupVersionResource]string{
		{Version: "v1", Resource: "namespaces"}: "Namespace", {Version: "v1", Resource: "pods"}: "Pod", {Group: "apps", Version: "v1", Resource: "deployments"}: "Deployment",
		{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}:           "CustomResourceDefinition",
		{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}:                       "APIService",
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"}: "ValidatingAdmissionPolicy",
	} {
		if all[gvr] != kind {
			t.Errorf("%v is of kind %q, want %q", gvr, all[gvr], kind)
		}
	}
}

var _ = It("[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers", func(t *T) {
	t.coreIsThere(t.aggregatedResources())
})

var _ = It("[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface", func(t *T) {
	lists := got[[]*metav1.APIResourceList](t)(t.Client.Discovery().ServerPreferredResources())
	found := map[string]bool{}
	for _, l := range lists {
		for _, r := range l.APIResources {
			found[l.GroupVersion+"/"+r.Name] = true
		}
	}
	for _, want := range []string{"v1/pods", "apps/v1/deployments", "batch/v1/jobs", "apiextensions.k8s.io/v1/customresourcedefinitions"} {
		if !found[want] {
			t.Errorf("%s is not found", want)
		}
	}
	t.coreIsThere(t.aggregatedResources())
})

var _ = It("[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery request for CRDs", func(t *T) {
	c := t.crd(crdOptions{})
	t.until("the resource in the aggregated discovery", t.condition(func() bool { return t.aggregatedResources()[c.gvr] == c.kind }))
})

var _ = It("[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface for CRDs", func(t *T) {
	c := t.crd(crdOptions{})
	t.until("the resource in the client's discovery", t.condition(func() bool {
		l, err := t.Client.Discovery().ServerResourcesForGroupVersion(c.gvr.GroupVersion().String())
		return err == nil && len(l.APIResources) > 0 && l.APIResources[0].Name == c.gvr.Resource && l.APIResources[0].Kind == c.kind
	}))
})

var _ = It("[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup", func(t *T) {
	listed := func() []metav1.APIGroup {
		return got[*metav1.APIGroupList](t)(t.Client.Discovery().ServerGroups()).Groups
	}
	for _, g := range listed() {
		if g.Name == "" {
			continue
		}
		b, _, code := t.raw("/apis/"+g.Name, "application/json")
		// Other tests add and remove custom resources meanwhile.
		if code == http.StatusNotFound && !slices.ContainsFunc(listed(), func(o metav1.APIGroup) bool { return o.Name == g.Name }) {
			continue
		}
		var one metav1.APIGroup
		if code != http.StatusOK || json.Unmarshal(b, &one) != nil || one.PreferredVersion.GroupVersion == "" {
			t.Errorf("/apis/%s: %d %s", g.Name, code, b)
			continue
		}
		found := false
		for _, v := range one.Versions {
			found = found || v == one.PreferredVersion
		}
		if !found {
			t.Errorf("the preferred version of %s is %v, there are %v", g.Name, one.PreferredVersion, one.Versions)
		}
	}
})

var _ = It("[sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup", func(t *T) {
	for gv, resource := range map[string]string{
		"admissionregistration.k8s.io/v1": "validatingwebhookconfigurations", "apiextensions.k8s.io/v1": "customresourcedefinitions", "apiregistration.k8s.io/v1": "apiservices",
		"apps/v1": "deployments", "authentication.k8s.io/v1": "tokenreviews", "authorization.k8s.io/v1": "selfsubjectaccessreviews", "autoscaling/v1": "horizontalpodautoscalers",
		"autoscaling/v2": "horizontalpodautoscalers", "batch/v1": "jobs", "certificates.k8s.io/v1": "certificatesigningrequests", "coordination.k8s.io/v1": "leases",
		"discovery.k8s.io/v1": "endpointslices", "events.k8s.io/v1": "events", "networking.k8s.io/v1": "ingresses", "node.k8s.io/v1": "runtimeclasses", "policy/v1": "poddisruptionbudgets",
		"scheduling.k8s.io/v1": "priorityclasses", "storage.k8s.io/v1": "csinodes", "flowcontrol.apiserver.k8s.io/v1": "flowschemas", "rbac.authorization.k8s.io/v1": "roles",
	} {
		b, _, code := t.raw("/apis/"+gv, "application/json")
		var l metav1.APIResourceList
		if code != http.StatusOK || json.Unmarshal(b, &l) != nil || l.GroupVersion != gv {
			t.Errorf("%s: %d", gv, code)
			continue
		}
		found := false
		for _, r := range l.APIResources {
			found = found || r.Name == resource
		}
		if !found {
			t.Errorf("%s has no %s", gv, resource)
		}
	}
})

var _ = It("[sig-api-machinery] server version should find the server version", func(t *T) {
	v, err := t.Client.Discovery().ServerVersion()
	t.must(err)
	if v.Major == "" || v.Minor == "" || strings.Trim(v.Minor, "0123456789+") != "" {
		t.Errorf("version %+v", v)
	}
})

var _ = It("[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata", func(t *T) {
	err := t.Client.AuthorizationV1().RESTClient().Post().Resource("selfsubjectaccessreviews").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").SetHeader("Content-Type", "application/json").
		Body([]byte(`{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"namespace":"x","resource":"pods","verb":"get"}}}`)).Do(t.Context()).Error()
	if !apierrors.IsNotAcceptable(err) {
		t.Errorf("got %v, want 406", err)
	}
})
