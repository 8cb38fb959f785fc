package customresource_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// TestConversionsShareConnections checks that the client of a conversion webhook
// is made for the definition, not for each object.
func TestConversionsShareConnections(t *testing.T) {
	e := start(t)
	var connections, reviews atomic.Int64
	hook := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reviews.Add(1)
		var review v1.ConversionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &v1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		for _, raw := range review.Request.Objects {
			u := &unstructured.Unstructured{}
			if err := json.Unmarshal(raw.Raw, &u.Object); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			u.SetAPIVersion(review.Request.DesiredAPIVersion)
			review.Response.ConvertedObjects = append(review.Response.ConvertedObjects, runtime.RawExtension{Object: u})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	hook.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	hook.StartTLS()
	t.Cleanup(hook.Close)
	ca, err := yaml.Marshal(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw}))
	if err != nil {
		t.Fatal(err)
	}
	e.define(fmt.Sprintf(`
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat}
  conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: %q, caBundle: %s}}}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`, hook.URL, ca), established)
	const count = 50
	for i := range count {
		if _, err := e.dynamic.Resource(boats).Namespace("default").Create(e.ctx, boat(fmt.Sprintf("b%d", i), "{colour: red}"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := e.dynamic.Resource(boats.GroupResource().WithVersion("v2")).Namespace("default").List(e.ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != count || list.Items[0].GetAPIVersion() != "sea.example.com/v2" {
		t.Fatalf("%d are listed, %v", len(list.Items), err)
	}
	if reviews.Load() == 0 || connections.Load() > 2 {
		t.Errorf("%d reviews took %d connections", reviews.Load(), connections.Load())
	}
}

// TestNamesAreTakenAtOnce checks that of definitions that want the same kind at
// the same time one gets it.
func TestNamesAreTakenAtOnce(t *testing.T) {
	e := start(t)
	const count = 10
	for i := range count {
		d := &v1.CustomResourceDefinition{}
		text := fmt.Sprintf(`
metadata: {name: boats%[1]d.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats%[1]d, singular: boat%[1]d, kind: Boat}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
`, i)
		if err := yaml.UnmarshalStrict([]byte(text), d); err != nil {
			t.Fatal(err)
		}
		if _, err := e.crds.ApiextensionsV1().CustomResourceDefinitions().Create(e.ctx, d, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w, err := e.crds.ApiextensionsV1().CustomResourceDefinitions().Watch(e.ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	settled := map[string]bool{} // by name, whether it is established
	for ev := range w.ResultChan() {
		if d, is := ev.Object.(*v1.CustomResourceDefinition); is && len(d.Status.Conditions) > 0 {
			settled[d.Name] = established(d)
		}
		if len(settled) == count {
			break
		}
	}
	n := 0
	for _, is := range settled {
		if is {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d definitions have the kind: %v", n, settled)
	}
}
