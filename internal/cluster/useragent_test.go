package cluster

import (
	"encoding/json"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/user"
)

func TestUserAgent(t *testing.T) {
	for _, c := range []struct {
		u            user.Info
		first, after string
	}{
		{controller("deployment-controller"), "kube-controller-manager", "/system:serviceaccount:kube-system:deployment-controller"},
		{controllerManagerUser, "kube-controller-manager", ""},
		{schedulerUser, "kube-scheduler", ""},
		{nodesUser, "kubelet", ""},
		{&user.DefaultInfo{Name: "system:node:n"}, "kubelet", ""},
		{apiServer, "kube-apiserver", ""},
	} {
		got := userAgent(c.u)
		if !strings.HasPrefix(got, c.first+"/v1.37.2 ("+runtime.GOOS+"/"+runtime.GOARCH+") kubernetes/") || !strings.HasSuffix(got, c.after) {
			t.Errorf("%s is %q, want %s…%s", c.u.GetName(), got, c.first, c.after)
		}
	}
	if got := userAgent(Admin); got != Admin.Name {
		t.Errorf("an administrator is %q", got)
	}
}

// TestManagersOfComponents checks the managers of the fields of a deployment, its
// pods and its node, once all of them run.
func TestManagersOfComponents(t *testing.T) {
	c := boot(t, Options{SimNodes: 1, NoDrain: true})
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
	for end := time.Now().Add(time.Minute); d.Status.AvailableReplicas != 1; {
		if time.Now().After(end) {
			t.Fatalf("the deployment is %+v", d.Status)
		}
		time.Sleep(10 * time.Millisecond)
		get("/apis/apps/v1/namespaces/default/deployments/d", &d)
	}
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
	for end := time.Now().Add(time.Minute); len(events.Items) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no event of the scheduler")
		}
		get("/api/v1/namespaces/default/events?fieldSelector=reason%3DScheduled", &events)
	}
	expect("event", &events.Items[0], map[string]string{"": "kube-scheduler"})
}

// TestVersion: the running server reports the version of its build.
func TestVersion(t *testing.T) {
	c := boot(t, Options{NoControllers: true, NoScheduler: true, NoDrain: true})
	var got version.Info
	if err := json.Unmarshal(ask(c, "GET", "/version", "").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := version.Info{Major: "1", Minor: "37", EmulationMajor: "1", EmulationMinor: "37", MinCompatibilityMajor: "1", MinCompatibilityMinor: "36",
		GitVersion: "v1.37.2+keelson", GitCommit: got.GitCommit, GitTreeState: got.GitTreeState, BuildDate: got.BuildDate,
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if got != want {
		t.Errorf("the version is\n%+v, want\n%+v", got, want)
	}
}
