package autoscaling

import (
	"context"
	"flag"
	"io"
	"maps"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/heap"
	"keelson.dev/keelson/internal/nodegroup"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/testcluster"
)

// world is a cluster with a Deployment.
type world struct {
	testing.TB
	client kubernetes.Interface
}

// begin starts a cluster with a Deployment without replicas.
func begin(tb testing.TB, options ...testcluster.Option) world {
	tb.Helper()
	w := world{tb, kubernetes.NewForConfigOrDie(testcluster.Start(tb, options...).InProcess)}
	labels := map[string]string{"app": "shop"}
	_, err := w.client.AppsV1().Deployments("default").Create(tb.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: appsv1.DeploymentSpec{
		Replicas: ptr.To[int32](0), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "shop"}}}}}}, metav1.CreateOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// until waits until ok. A benchmark, which may take longer, asks seldom.
func (w world) until(what string, ok func(context.Context) (bool, error)) {
	w.Helper()
	done := func() bool {
		done, err := ok(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		return done
	}
	if _, is := w.TB.(*testing.B); !is {
		harness.Eventually(w, what, done)
		return
	}
	for !done() {
		time.Sleep(50 * time.Millisecond)
	}
}

// scale sets the Deployment's replicas, and waits until n are ready and no other pod is
// left.
func (w world) scale(n int32) {
	w.Helper()
	d := w.client.AppsV1().Deployments("default")
	if _, err := d.UpdateScale(w.Context(), "shop", &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: "default"}, Spec: autoscalingv1.ScaleSpec{Replicas: n}}, metav1.UpdateOptions{}); err != nil {
		w.Fatal(err)
	}
	w.until("the replicas", func(ctx context.Context) (bool, error) {
		now, err := d.Get(ctx, "shop", metav1.GetOptions{})
		return err == nil && now.Status.ReadyReplicas == n && now.Status.Replicas == n, err
	})
}

func (w world) nodes(ctx context.Context) (int, error) {
	l, err := w.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	return len(l.Items), nil
}

// elastic makes a cluster of up to most simulated nodes, which are removed soon
// after they become unneeded.
func elastic(most int) testcluster.Option {
	return func(o *cluster.Options) {
		o.MostSimNodes = most
		o.Autoscaling = nodegroup.DefaultOptions()
		o.Autoscaling.ScanInterval = time.Second
		o.Autoscaling.UnneededTime, o.Autoscaling.DelayAfterAdd = 2*time.Second, 2*time.Second
		o.Autoscaling.Parallelism, o.Autoscaling.DelayAfterTaint = 100, time.Second
	}
}

// TestBlackFriday scales a Deployment from 0 to 5,000 replicas and back, and checks
// that the number of nodes grows from 0 to no more than are needed, and falls to 0
// again.
func TestBlackFriday(t *testing.T) {
	const replicas, perNode = 5000, 250
	w := begin(t, elastic(500))
	if n, err := w.nodes(t.Context()); err != nil || n != 0 {
		t.Fatalf("there are %d nodes at first, %v", n, err)
	}
	for n := int32(1000); n <= replicas; n += 1000 { // in steps that each take less than harness.Patience
		w.scale(n)
	}
	n, err := w.nodes(t.Context())
	if err != nil || n < replicas/perNode || n > replicas/perNode+2 {
		t.Errorf("%d nodes, %v, for %d pods of which %d are on one", n, err, replicas, perNode)
	}
	events, err := w.client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=TriggeredScaleUp", Limit: 1})
	if err != nil || len(events.Items) == 0 {
		t.Errorf("no pod says that it has triggered a scale-up: %v", err)
	}
	w.scale(0)
	w.until("the nodes to be gone", func(ctx context.Context) (bool, error) {
		n, err := w.nodes(ctx)
		return n == 0, err
	})
	w.until("the status", func(ctx context.Context) (bool, error) {
		cm, err := w.client.CoreV1().ConfigMaps("kube-system").Get(ctx, "cluster-autoscaler-status", metav1.GetOptions{})
		return err == nil && cm.Data["status"] != "", err
	})
}

// processor returns the processor time that this process has used.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// profile is the file of a profile of the processor during what is measured; beside it are
// the allocations before and after it.
var profile = flag.String("profile", "", "write profiles of what is measured to this file and to those that begin with its name")

// profiled runs f, with its profiles if they are wanted.
func profiled(b *testing.B, f func()) {
	b.Helper()
	if *profile == "" {
		f()
		return
	}
	write := func(name string, p func(io.Writer) error) {
		file, err := os.Create(*profile + name)
		if err != nil {
			b.Fatal(err)
		}
		if err := p(file); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { file.Close() })
	}
	allocs := func(w io.Writer) error { return pprof.Lookup("allocs").WriteTo(w, 0) }
	write(".before", allocs)
	write("", pprof.StartCPUProfile)
	f()
	pprof.StopCPUProfile()
	runtime.GC() // what is not yet in the profile of allocations
	write(".after", allocs)
}

// settled waits until n nodes are what the controllers make of them.
func (w world) settled(n int) {
	w.Helper()
	w.until("the nodes to settle", func(ctx context.Context) (bool, error) {
		l, err := w.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil || len(l.Items) < n {
			return false, err
		}
		for i := range l.Items {
			first, node := &l.Items[0], &l.Items[i]
			if ttl := node.Annotations[v1.ObjectTTLAnnotationKey]; node.Spec.PodCIDR == "" || ttl == "" || ttl != first.Annotations[v1.ObjectTTLAnnotationKey] || len(node.Spec.Taints) > 0 {
				return false, nil
			}
		}
		return true, nil
	})
}

// measure reports how long f takes for each of n pods, and the processor time.
func measure(b *testing.B, n int, f func()) {
	b.Helper()
	heap.Pace() // as the program does
	before, after := runtime.MemStats{}, runtime.MemStats{}
	runtime.ReadMemStats(&before)
	begun, used := time.Now(), processor(b)
	profiled(b, f)
	b.ReportMetric(float64(n)/time.Since(begun).Seconds(), "pods/s")
	b.ReportMetric(float64((processor(b)-used).Microseconds())/float64(n), "CPU-µs/pod")
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(n), "B/pod")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(n), "allocs/pod")
	b.ReportMetric(time.Since(begun).Seconds(), "s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBlackFriday measures the time until 5,000 pending pods run on nodes that the
// autoscaler has to add: of all, and of one from its being pending to its running, of
// which half and 99 % are below what is reported.
func BenchmarkBlackFriday(b *testing.B) {
	w := begin(b, elastic(500))
	waited := w.pendingTimes()
	measure(b, 5000, func() { w.scale(5000) })
	times := waited()
	if len(times) != 5000 {
		b.Errorf("%d pods were seen to run", len(times))
	}
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2].Seconds(), "pending-p50-s")
	b.ReportMetric(times[len(times)*99/100].Seconds(), "pending-p99-s")
}

// pendingTimes watches the pods, and returns the function that returns how long each
// pod that has run since had been seen before.
func (w world) pendingTimes() func() []time.Duration {
	w.Helper()
	pods, err := w.client.CoreV1().Pods("default").Watch(w.Context(), metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	seen, times, done := map[types.UID]time.Time{}, map[types.UID]time.Duration{}, make(chan struct{})
	go func() {
		defer close(done)
		for e := range pods.ResultChan() {
			p, ok := e.Object.(*v1.Pod)
			if !ok {
				continue
			}
			if seen[p.UID].IsZero() {
				seen[p.UID] = time.Now()
			}
			if times[p.UID] == 0 && p.Status.Phase == v1.PodRunning {
				times[p.UID] = time.Since(seen[p.UID])
			}
		}
	}()
	return func() []time.Duration {
		pods.Stop()
		<-done
		return slices.Collect(maps.Values(times))
	}
}

// BenchmarkDeployment measures the time until 10,000 replicas of a new
// Deployment run on 5,000 nodes.
func BenchmarkDeployment(b *testing.B) {
	w := begin(b, testcluster.WithNodes(5000))
	w.settled(5000)
	measure(b, 10_000, func() { w.scale(10_000) })
}

// BenchmarkDelete measures the deletion of a Deployment with 10,000 pods.
func BenchmarkDelete(b *testing.B) {
	w := begin(b, testcluster.WithNodes(500))
	w.settled(500)
	w.scale(10_000)
	measure(b, 10_000, func() {
		if err := w.client.AppsV1().Deployments("default").Delete(b.Context(), "shop", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}); err != nil {
			b.Fatal(err)
		}
		w.until("the pods to be gone", func(ctx context.Context) (bool, error) {
			l, err := w.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{Limit: 1})
			return err == nil && len(l.Items) == 0, err
		})
	})
}

// BenchmarkIdle measures the share of a processor that 5,000 idle nodes use.
func BenchmarkIdle(b *testing.B) {
	w := begin(b, testcluster.WithNodes(5000))
	w.settled(5000)
	const period = 20 * time.Second
	time.Sleep(period) // until the work that the new nodes cause is done
	used := processor(b)
	time.Sleep(period)
	b.ReportMetric(100*(processor(b)-used).Seconds()/period.Seconds(), "%-of-a-core")
	b.ReportMetric(0, "ns/op")
}
