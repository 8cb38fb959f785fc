package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/version"
	"keelson.dev/keelson/test/harness"
)

// dash runs keelson dash with a kubeconfig until the test ends, and returns the URL
// that it prints.
func dash(t *testing.T, file string) (url string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		root := root()
		root.SetArgs([]string{"dash", "--no-open", "--kubeconfig", file})
		root.SetOut(w)
		root.SetErr(w)
		err := root.ExecuteContext(ctx)
		w.CloseWithError(err)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		out.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("keelson dash: %v after %q", err, line)
	}
	go io.Copy(io.Discard, lines) //nolint:errcheck // ends with the test
	return regexp.MustCompile(`http://\S+`).FindString(line)
}

// kubeconfig writes a kubeconfig for a server and a user.
func kubeconfig(t *testing.T, server *api.Cluster, user *api.AuthInfo) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	cfg := api.NewConfig()
	cfg.Clusters["c"], cfg.AuthInfos["u"] = server, user
	cfg.Contexts["x"] = &api.Context{Cluster: "c", AuthInfo: "u"}
	cfg.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestDash opens the page of a cluster as a user who may see one namespace, and follows
// what happens there.
func TestDash(t *testing.T) {
	ctx := t.Context()
	c, err := cluster.Start(context.WithoutCancel(ctx), cluster.Options{SimNodes: 2, Options: controlplane.Options{Listen: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	defer func() {
		if !stopped {
			_ = c.Stop()
		}
	}()
	cfg, err := c.Kubeconfig(contextName)
	if err != nil {
		t.Fatal(err)
	}
	server := cfg.Clusters[cfg.Contexts[cfg.CurrentContext].Cluster]
	admin := kubernetes.NewForConfigOrDie(c.Config(inprocess.Admin))
	_, err = admin.RbacV1().RoleBindings("default").Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "x"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: "default"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var token string
	harness.Succeeds(t, "the account exists", func() error {
		secret, err := admin.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err == nil {
			token = secret.Status.Token
		}
		return err
	})
	url := dash(t, kubeconfig(t, server, &api.AuthInfo{Token: token}))
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	get := func(url string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		return browser.Do(req)
	}
	read := func(path string) (int, string) {
		t.Helper()
		resp, err := get(path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if code, body := read(url); code != http.StatusOK {
		t.Fatalf("%s: %d %s", url, code, body)
	}
	base, _, _ := strings.Cut(url, "/?")
	for path, want := range map[string]string{
		"/dash/":                             "200 <!doctype html>",
		"/api/v1/namespaces/default/pods":    `200 {"kind":"PodList"`,
		"/api/v1/nodes":                      `403 {"kind":"Status"`,
		"/dash/stream":                       `403 {"kind":"Status"`,
		"/dash/stream?namespace=kube-system": `403 {"kind":"Status"`,
		"/dash/none":                         "404 the page has no such file",
	} {
		code, body := read(base + path)
		if got := fmt.Sprint(code, " ", body); !strings.HasPrefix(strings.ToLower(got), strings.ToLower(want)) {
			t.Errorf("%s: %.300s, want %s", path, got, want)
		}
	}
	resp, err := get(base + "/dash/stream?namespace=default")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stream := bufio.NewReader(resp.Body)
	until := func(want string) {
		t.Helper()
		for seen := ""; !strings.Contains(seen, want); {
			line, err := stream.ReadString('\n')
			if err != nil {
				t.Fatalf("the stream ends with %v, and without %s", err, want)
			}
			seen = line
		}
	}
	until(`["ready"]`)
	// The stream waited for its turn, and needs none any more.
	if resp.Header.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID) == "" {
		t.Errorf("the stream did not wait for its turn: %v", resp.Header)
	}
	metrics, err := admin.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil || !strings.Contains(string(metrics), "\n"+`apiserver_flowcontrol_current_executing_seats{flow_schema="service-accounts",priority_level="workload-low"} 0`+"\n") {
		t.Errorf("the stream keeps its turn: %v in %s", err, regexp.MustCompile(`apiserver_flowcontrol_current_exec.*`).FindAll(metrics, -1))
	}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "image"}}}}
	if _, err := admin.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(`"default","p",1,2,1,0,0]`) // running and ready on a node of which the name is known
	stopped = true
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	until(`["bye","stop"]`)
}

// TestDashElsewhere asks API servers that have no page for it.
func TestDashElsewhere(t *testing.T) {
	for _, c := range []struct {
		code          int
		version, want string
	}{
		{http.StatusNotFound, "v1.37.2", "it is no Keelson, but Kubernetes v1.37.2"},
		{http.StatusForbidden, "v1.37.2", "it is no Keelson, but Kubernetes v1.37.2"},
		{http.StatusNotFound, "v1.37.2" + version.Build, "a version before keelson dash"},
		{http.StatusForbidden, "v1.37.2" + version.Build, "bind the ClusterRole keelson:dash"},
		{http.StatusUnauthorized, "", "does not take the kubeconfig's credentials"},
		{http.StatusTeapot, "", "answers 418 I'm a teapot: short and stout"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/version" {
				fmt.Fprintf(w, `{"gitVersion":%q}`, c.version)
				return
			}
			http.Error(w, "short and stout", c.code)
		}))
		root := root()
		root.SetArgs([]string{"dash", "--no-open", "--kubeconfig", kubeconfig(t, &api.Cluster{Server: s.URL}, &api.AuthInfo{})})
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("where the page is answered with %d: %v, want %s", c.code, err, c.want)
		}
		s.Close()
	}
}
