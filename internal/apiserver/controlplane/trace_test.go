package controlplane

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/store/etcd"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/test/harness/etcdtest"
)

// BenchmarkRecording writes to a server that records what caused what and to one that does
// not, in turns, and reports the processor time, the clock's time and the memory of a write
// of each, and how much more the first takes of them: of processor time the median of the
// rounds, beside the quarters. In memory and with etcd the writes are those of a component of
// the process, because of another object: of other writes recording is a smaller part, as of
// those to a disk. The record is full from the beginning. Each etcd's processor time counts
// with its server's.
func BenchmarkRecording(b *testing.B) {
	b.Run("memory", func(b *testing.B) {
		benchmarkRecording(b, func() (Options, int) { return Options{}, 0 })
	})
	// The writes of a user's client: over TLS, each synced to the disk.
	b.Run("disk", func(b *testing.B) {
		benchmarkRecording(b, func() (Options, int) { return Options{DataDir: b.TempDir(), Listen: "127.0.0.1:0"}, 0 })
	})
	b.Run("etcd", func(b *testing.B) {
		benchmarkRecording(b, func() (Options, int) {
			s := etcdtest.Start(b)
			return Options{Etcd: &etcd.Options{Servers: []string{s.URL}}}, s.PID()
		})
	})
}

func benchmarkRecording(b *testing.B, options func() (o Options, pid int)) {
	const recording, not = 0, 1
	var sides [2]*side
	for i := range sides {
		o, pid := options()
		if i == not {
			o.TraceMemory = -1
		}
		sides[i] = newSide(b, o, pid)
	}
	full(sides[recording].c.Trace)
	// Collections of garbage would be in this turn or that one, by chance: there is none in
	// any, and what a turn allocates counts as much as it costs to collect it: GOGC is 100, so
	// that a collection is done for each time that as much is allocated as is in use.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, s := range sides { // what is made at the first write
		s.turn(b)
	}
	var sums [2]cost
	var ratios []float64
	var collecting float64 // of a byte
	for round := 0; b.Loop(); round++ {
		if round%collectingEach == 0 {
			collecting = collect(b)
		}
		var now [2]cost
		for _, i := range [][4]int{{0, 1, 1, 0}, {1, 0, 0, 1}}[round%2] {
			c := sides[i].turn(b)
			c.cpu += collecting * c.bytes
			now[i].add(c)
		}
		for i := range sums {
			sums[i].add(now[i])
		}
		ratios = append(ratios, now[recording].cpu/now[not].cpu)
	}
	writes := float64(b.N * writesInRound)
	for i, name := range []string{"on", "off"} {
		b.ReportMetric(sums[i].cpu/writes/1e3, "cpu-µs/write-"+name)
		b.ReportMetric(sums[i].clock/writes/1e3, "clock-µs/write-"+name)
		b.ReportMetric(sums[i].bytes/writes, "B/write-"+name)
		b.ReportMetric(sums[i].objects/writes, "allocs/write-"+name)
	}
	slices.Sort(ratios)
	for i, name := range []string{"%cpu-q1", "%cpu", "%cpu-q3"} {
		b.ReportMetric(100*(ratios[len(ratios)*(i+1)/4]-1), name)
	}
	b.ReportMetric(100*(sums[0].clock/sums[1].clock-1), "%clock")
	b.ReportMetric(0, "ns/op")
}

// side is a server that is measured.
type side struct {
	c      *Instance
	client kubernetes.Interface
	etcd   int // the PID of its etcd; 0 if it has none
	cause  *v1.Pod
	turns  int
}

func newSide(b *testing.B, o Options, pid int) *side {
	o.NoDrain = true
	c := boot(b, o)
	s := &side{c: c, client: c.Client(inprocess.Admin), etcd: pid}
	if o.DataDir != "" {
		config, err := c.RESTConfig()
		if err != nil {
			b.Fatal(err)
		}
		config.QPS = -1
		s.client = kubernetes.NewForConfigOrDie(config)
	}
	account := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}} // no controller makes it here
	if _, err := s.client.CoreV1().ServiceAccounts("default").Create(b.Context(), account, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	var err error
	if s.cause, err = s.client.CoreV1().Pods("default").Create(b.Context(), newPod("cause"), metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	return s
}

// cost is what writes take: nanoseconds, bytes and objects of memory.
type cost struct{ cpu, clock, bytes, objects float64 }

func (c *cost) add(o cost) {
	c.cpu += o.cpu
	c.clock += o.clock
	c.bytes += o.bytes
	c.objects += o.objects
}

// A turn is short, so that what else the machine does falls into turns of both servers, and a
// round has two of each. Garbage is collected, between rounds, now and then.
const (
	podsInTurn     = 10
	writesInRound  = 2 * 3 * podsInTurn
	collectingEach = 16
)

// turn makes pods, writes their statuses and deletes them.
func (s *side) turn(b *testing.B) cost {
	s.turns++
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, clock := s.used(b), time.Now()
	for i := range podsInTurn {
		if err := s.pod(fmt.Sprintf("p-%d-%d", s.turns, i)); err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(clock)
	cpu = s.used(b) - cpu
	runtime.ReadMemStats(&after)
	return cost{float64(cpu), float64(took), float64(after.TotalAlloc - before.TotalAlloc), float64(after.Mallocs - before.Mallocs)}
}

// used returns the processor time that this process and the server's etcd have had.
func (s *side) used(b *testing.B) time.Duration {
	used := processorTime(b, 0)
	if s.etcd != 0 {
		used += processorTime(b, s.etcd)
	}
	return used
}

func (s *side) pod(name string) error {
	ctx := trace.WithCause(context.Background(), s.cause)
	pods := s.client.CoreV1().Pods("default")
	p, err := pods.Create(ctx, newPod(name), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	ctx = trace.WithCause(context.Background(), p)
	p.Status.Message = "written"
	if p, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
		return err
	}
	return pods.Delete(trace.WithCause(context.Background(), p), name, *metav1.NewDeleteOptions(0))
}

func newPod(name string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}
}

// full fills a record.
func full(r *trace.Recorder) {
	s := trace.Step{Verb: "create", Resource: "pods", Namespace: "default"}
	for n := 0; n < trace.DefaultLimit; n += s.Size() {
		s.Name, s.UID = fmt.Sprint("p-", n), types.UID(fmt.Sprintf("0f6b5b53-0f43-4e63-9c49-%012d", n))
		r.Add(s)
	}
}

// collect collects garbage, and returns how many nanoseconds of processor time that takes
// for each byte that is in use.
func collect(b *testing.B) float64 {
	before := processorTime(b, 0)
	runtime.GC()
	took := processorTime(b, 0) - before
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(took) / float64(m.HeapAlloc)
}
