package node_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestPreStopAtEnd checks that a node that is taken down runs the preStop hooks of its
// containers, though no agent runs anymore.
func TestPreStopAtEnd(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("node", func(t *testing.T) {
		e := start(t)
		p := sleepingPod("hooked")
		p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Host: u.Hostname(), Port: intstr.FromInt(port), Path: "/"}}}
		e.create(p)
		e.pod("hooked", ready)
		if n := asked.Load(); n != 0 {
			t.Errorf("the hook ran %d times before the end", n)
		}
	})
	if n := asked.Load(); n != 1 {
		t.Errorf("the hook ran %d times", n)
	}
}
