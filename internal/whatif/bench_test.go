package whatif

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/heap"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/test/harness"
)

// BenchmarkWhatIf asks what a change would do to a cluster that runs 1,000 pods on 50
// nodes. It reports the processor time of one such question, and of its parts.
func BenchmarkWhatIf(b *testing.B) {
	ctx := b.Context()
	heap.Pace() // as keelson whatif does
	c, err := cluster.Start(ctx, cluster.Options{SimNodes: 50})
	if err != nil {
		b.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(c.Config(inprocess.Admin))
	if _, err := client.AppsV1().Deployments("default").Create(ctx, deployment("web", 1000, "100m"), metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	harness.Eventually(b, "1,000 pods", func() bool {
		d, err := client.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			b.Fatal(err)
		}
		return d.Status.AvailableReplicas == 1000
	})
	content, err := c.Store.(*embedded.Store).Content(ctx, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		b.Fatal(err)
	}
	for _, test := range []struct {
		name, patch string
		pods        int
	}{
		{"of 50 pods more", `{"spec":{"replicas":1050}}`, 1050},
		{"of 1000 pods more", `{"spec":{"replicas":2000}}`, 2000},
		{"of 1000 pods less", `{"spec":{"replicas":0}}`, 0},
		{"of 1000 pods replaced", `{"spec":{"template":{"metadata":{"labels":{"new":"yes"}}}}}`, 1000},
	} {
		b.Run(test.name, func(b *testing.B) { ask(b, content, test.patch, test.pods) })
	}
}

// ask makes a fork, patches the Deployment web in it, and expects so many pods.
func ask(b *testing.B, content *embedded.Content, patch string, pods int) {
	ctx := b.Context()
	var parts [4]time.Duration
	for b.Loop() {
		runtime.GC() // what the last one left is not this one's
		at := cpu()
		part := func(i int) {
			now := cpu()
			parts[i] += now - at
			at = now
		}
		f, err := New(ctx, content)
		if err != nil {
			b.Fatal(err)
		}
		part(0)
		if _, err := f.Client.AppsV1().Deployments("default").Patch(ctx, "web", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			b.Fatal(err)
		}
		took, err := f.Settle(ctx, time.Minute)
		if err != nil {
			b.Fatal(err)
		}
		part(1)
		r, err := f.Report(ctx, took)
		if err != nil || len(r.Pods) != 1 || r.Pods[0].After != pods {
			b.Fatal(r, err)
		}
		part(2)
		if err := f.Stop(); err != nil {
			b.Fatal(err)
		}
		part(3)
	}
	sum := time.Duration(0)
	for i, name := range []string{"new", "settle", "report", "stop"} {
		b.ReportMetric(float64(parts[i].Milliseconds())/float64(b.N), name+"-cpu-ms/op")
		sum += parts[i]
	}
	b.ReportMetric(float64(sum.Milliseconds())/float64(b.N), "cpu-ms/op")
}

// cpu returns the processor time that the process has taken.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
