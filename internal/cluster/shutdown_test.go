package cluster

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/apiserver/inprocess"
)

// TestShutdown stops a server under load: it says before that it will, ends
// watches and finishes requests, and what it has acknowledged is there afterwards.
func TestShutdown(t *testing.T) {
	o := Options{Options: controlplane.Options{DataDir: t.TempDir(), Listen: "127.0.0.1:0", ShutdownDelay: 500 * time.Millisecond}, NoScheduler: true}
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	client, ctx := kubernetes.NewForConfigOrDie(cfg), t.Context()
	w, err := client.CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	var writers sync.WaitGroup
	var stopping atomic.Bool
	for i := range 8 {
		writers.Go(func() {
			for n := 0; ; n++ {
				name := "m-" + strconv.Itoa(i) + "-" + strconv.Itoa(n)
				_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
				switch {
				case err == nil:
					mu.Lock()
					acknowledged[name] = true
					mu.Unlock()
				case !stopping.Load():
					t.Errorf("before the stop: %v", err)
					return
				case apierrors.IsInternalError(err):
					t.Errorf("a request was broken off: %v", err)
					return
				default: // the connection is refused
					return
				}
			}
		})
	}
	rt, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ready := func() int {
		req, err := http.NewRequestWithContext(ctx, "GET", cfg.Host+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := rt.RoundTrip(req)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if code := ready(); code != http.StatusOK {
		t.Fatalf("/readyz answers %d", code)
	}
	stopping.Store(true)
	stopped := make(chan error, 1)
	go func() { stopped <- c.Stop() }()
	unready := false
	for code := ready(); code != 0; code = ready() {
		unready = unready || code == http.StatusInternalServerError
	}
	if !unready {
		t.Error("/readyz did not fail before the server was gone")
	}
	for range w.ResultChan() { //nolint:revive // until it ends
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	writers.Wait()
	o.Listen = ""
	c = boot(t, o)
	l, err := c.Client(inprocess.Admin).CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range l.Items {
		delete(acknowledged, m.Name)
	}
	if len(acknowledged) > 0 {
		t.Errorf("%d acknowledged writes are lost", len(acknowledged))
	}
}
