package hook

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
)

// TestPreStop checks that a hook restored from the runtime's annotations sends its
// request to the port of the pod that it names.
func TestPreStop(t *testing.T) {
	asked := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer s.Close()
	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	c := &v1.Container{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: int32(n)}},
		Lifecycle: &v1.Lifecycle{PreStop: &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Path: "/stop", Port: intstr.FromString("web")}}}}
	kept := &runtimeapi.Container{Annotations: map[string]string{cri.PreStopAnnotation: Encode(c)}}
	if err := (Runner{}).PreStop(t.Context(), kept, func(context.Context) (string, error) { return host, nil }); err != nil {
		t.Fatal(err)
	}
	if path := <-asked; path != "/stop" {
		t.Errorf("asked for %s", path)
	}
	if text := Encode(&v1.Container{}); text != "" {
		t.Errorf("a container without a hook: %q", text)
	}
	if err := (Runner{}).PreStop(t.Context(), &runtimeapi.Container{}, nil); err != nil {
		t.Error(err)
	}
}
