package pod

import (
	"context"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/image"
	"keelson.dev/keelson/internal/node/nodemetrics"
)

// woken reports whether the worker was woken, once.
func woken(b *base) bool {
	select {
	case <-b.wake:
		return true
	default:
		return false
	}
}

// version returns a pod at that version.
func version(resourceVersion string, generation int64) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "u", ResourceVersion: resourceVersion, Generation: generation}}
}

// TestWrittenStatus checks that a worker is woken after its status was written only where
// there is more to do.
func TestWrittenStatus(t *testing.T) {
	for name, c := range map[string]struct {
		while  func(w *worker) // what happens while the status is written
		change func(w *worker) // and what the worker computes meanwhile
		want   bool
	}{
		"alone":                            {},
		"comes back as a change":           {while: func(w *worker) { w.podChanged(version("2", 1)) }},
		"another wrote, too":               {while: func(w *worker) { w.podChanged(version("3", 1)) }, want: true},
		"the pod's status is another one":  {change: func(w *worker) { w.report.status = &v1.PodStatus{Phase: v1.PodFailed} }, want: true},
		"the pod is taken down, and waits": {while: func(w *worker) { w.interrupt() }, want: true},
		"the pod is deleted in the meantime": {while: func(w *worker) {
			p := version("3", 1)
			p.DeletionTimestamp = &metav1.Time{}
			w.podChanged(p)
		}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			w := newWorker(New(Config{Client: client, Images: &image.Puller{}, Clock: clock.RealClock{}, Metrics: nodemetrics.New("node")}), version("1", 1))
			w.running, w.interrupt = context.WithCancel(t.Context())
			defer w.interrupt()
			client.PrependReactor("update", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				if c.while != nil {
					c.while(w)
				}
				return true, version("2", 1), nil
			})
			status := v1.PodStatus{Phase: v1.PodRunning}
			w.report.status, w.report.posting = &status, true
			if c.change != nil {
				c.change(w)
			}
			w.report.post(t.Context(), w.latest(), status)
			if got := woken(w.base); got != c.want {
				t.Errorf("woken: %v, want %v", got, c.want)
			}
			w.podChanged(version("2", 1))
			if woken(w.base) {
				t.Error("the pod as the API gave it for the status is taken for a change")
			}
		})
	}
}
