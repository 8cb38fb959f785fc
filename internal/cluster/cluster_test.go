package cluster

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/apiserver/inprocess"
)

func boot(t testing.TB, o Options) *Cluster {
	t.Helper()
	o.Progress = func(step string, took time.Duration) { t.Logf("%-16s %s", step, took) }
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestStart(t *testing.T) {
	c := boot(t, Options{Options: controlplane.Options{DataDir: t.TempDir(), Listen: "127.0.0.1:0"}})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	cm, err := client.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if cm.UID == "" || cm.ResourceVersion == "" || len(cm.ManagedFields) != 1 {
		t.Errorf("created: %+v", cm)
	}
	w, err := client.CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{ResourceVersion: cm.ResourceVersion, FieldSelector: "metadata.name=" + cm.Name})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	cm.Data["k"] = "w"
	if _, err = client.CoreV1().ConfigMaps("default").Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if ev := <-w.ResultChan(); ev.Type != "MODIFIED" || ev.Object.(*v1.ConfigMap).Data["k"] != "w" {
		t.Errorf("event %+v", ev)
	}
	l, err := client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{LabelSelector: "!x"})
	if err != nil || len(l.Items) == 0 {
		t.Fatalf("list: %v, %v", l, err)
	}
}

// ask has the API server answer a request, without a network between.
func ask(c *Cluster, method, path, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "bench/1")
	w := httptest.NewRecorder()
	c.Server.ServeHTTP(w, req.WithContext(apiserver.WithUser(req.Context(), inprocess.Admin)))
	return w
}
