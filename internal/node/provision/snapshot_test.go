package provision

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// TestSnapshot checks that a snapshot's handle is its own content's: neither one that is
// not ready or is going, nor a content of another snapshot or driver, and no path that a
// name leads to.
func TestSnapshot(t *testing.T) {
	const ready = `{"metadata":{"uid":"u"},"status":{"boundVolumeSnapshotContentName":"c","readyToUse":true}}`
	const content = `{"spec":{"driver":"d","volumeSnapshotRef":{"namespace":"ns","name":"s","uid":"u"}},"status":{"snapshotHandle":"h"}}`
	for _, c := range []struct {
		name, of, snapshot, content, want string
	}{
		{"ready", "s", ready, content, ""},
		{"not ready", "s", strings.Replace(ready, "true", "false", 1), content, "snapshot s is not Ready"},
		{"going", "s", strings.Replace(ready, `"uid":"u"`, `"uid":"u","deletionTimestamp":"2026-11-29T00:00:00Z"`, 1), content, "snapshot s is currently being deleted"},
		{"another's content", "s", ready, strings.Replace(content, `"uid":"u"`, `"uid":"x"`, 1), "snapshotcontent c is of snapshot ns/s, and not of ns/s"},
		{"another driver's", "s", ready, strings.Replace(content, `"driver":"d"`, `"driver":"x"`, 1), "snapshot s is of driver x"},
		{"no handle", "s", ready, strings.Replace(content, `"h"`, `""`, 1), "snapshot handle s is not available"},
		{"a path", "../../../secrets/x", ready, content, "invalid name"},
		{"a content's path", "s", strings.Replace(ready, `"c"`, `"../../../api/v1/nodes"`, 1), content, "invalid name"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/apis/snapshot.storage.k8s.io/v1/namespaces/ns/volumesnapshots/s":
				_, _ = w.Write([]byte(c.snapshot))
			case "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents/c":
				_, _ = w.Write([]byte(c.content))
			default:
				t.Errorf("%s: asked for %s", c.name, r.URL.Path)
			}
		}))
		p := &Provisioner{Config: Config{Driver: "d", Client: kubernetes.NewForConfigOrDie(&rest.Config{Host: server.URL})}}
		handle, err := p.snapshot(t.Context(), "ns", c.of)
		server.Close()
		if c.want == "" && (err != nil || handle != "h") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %q, %v; want %q", c.name, handle, err, c.want)
		}
	}
}
