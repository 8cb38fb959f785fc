package cluster

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/test/harness"
)

// TestManagersOfComponents checks the managers of the fields of a deployment, its
// pods and its node, once all of them run.
func TestManagersOfComponents(t *testing.T) {
	c := boot(t, Options{Options: controlplane.Options{NoDrain: true}, SimNodes: 1})
	w := ask(c, "POST", "/apis/apps/v1/namespaces/default/deployments", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"d"}},
		"template":{"metadata":{"labels":{"a":"d"}},"spec":{"containers":[{"name":"c","image":"x"}]}}}}`)
	if w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	get := func(path string, into any) {
		t.Helper()
		if err := json.Unmarshal(ask(c, "GET", path, "").Body.Bytes(), into); err != nil {
			t.Fatal(err)
		}
	}
	var d apps.Deployment
	harness.Eventually(t, "an available replica", func() bool {
		get("/apis/apps/v1/namespaces/default/deployments/d", &d)
		return d.Status.AvailableReplicas == 1
	})
	expect := func(what string, o metav1.Object, want map[string]string) {
		t.Helper()
		// Several may own parts of one: the node's labels are its kubelet's, and its
		// taints a controller's.
		for sub, manager := range want {
			if !slices.ContainsFunc(o.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool { return m.Subresource == sub && m.Manager == manager }) {
				t.Errorf("%s %q is managed by %+v, want %q", what, sub, o.GetManagedFields(), manager)
			}
		}
	}
	expect("deployment", &d, map[string]string{"status": "kube-controller-manager"})
	var sets apps.ReplicaSetList
	get("/apis/apps/v1/namespaces/default/replicasets", &sets)
	var pods v1.PodList
	get("/api/v1/namespaces/default/pods", &pods)
	var nodes v1.NodeList
	get("/api/v1/nodes", &nodes)
	if len(sets.Items) != 1 || len(pods.Items) != 1 || len(nodes.Items) != 1 {
		t.Fatalf("%d replica sets, %d pods, %d nodes", len(sets.Items), len(pods.Items), len(nodes.Items))
	}
	expect("replica set", &sets.Items[0], map[string]string{"": "kube-controller-manager", "status": "kube-controller-manager"})
	expect("pod", &pods.Items[0], map[string]string{"": "kube-controller-manager", "status": "kubelet"})
	expect("node", &nodes.Items[0], map[string]string{"": "kubelet"})
	var events v1.EventList
	harness.Eventually(t, "an event of the scheduler", func() bool {
		get("/api/v1/namespaces/default/events?fieldSelector=reason%3DScheduled", &events)
		return len(events.Items) > 0
	})
	expect("event", &events.Items[0], map[string]string{"": "kube-scheduler"})
}
