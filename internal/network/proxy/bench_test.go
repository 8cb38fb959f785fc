package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// namespace moves the test's thread to a network namespace of its own, which
// ends with the test.
func namespace(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

var podRange = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}

// kernelRig returns a rig on the kernel's tables.
func kernelRig(t testing.TB) *rig {
	namespace(t)
	return newRig(t, Config{IPv4: NewNetfilter(false, podRange), IPv6: NewNetfilter(true, podRange), Flows: Conntrack(), NoHealthChecks: true})
}

// BenchmarkFromNothing measures writing a cluster's Services into an empty
// kernel.
func BenchmarkFromNothing(b *testing.B) {
	for _, size := range []struct{ services, each int }{{1000, 5}, {10_000, 5}, {1, 100_000}} {
		b.Run(fmt.Sprintf("services=%d/endpoints=%d", size.services, size.services*size.each), func(b *testing.B) {
			objs := many(size.services, size.each)
			r := kernelRig(b)
			r.set(objs...)
			for b.Loop() {
				for _, t := range r.tables {
					t.written = false
				}
				r.sync()
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/op")
		})
	}
}

// BenchmarkOneEndpoint measures the change of one endpoint of a Service among
// many.
func BenchmarkOneEndpoint(b *testing.B) {
	for _, size := range []struct{ services, each int }{{10_000, 5}, {1, 100_000}} {
		b.Run(fmt.Sprintf("services=%d/endpoints=%d", size.services, size.services*size.each), func(b *testing.B) {
			r := kernelRig(b)
			objs := many(size.services, size.each)
			r.set(objs...)
			r.sync()
			was := objs[len(objs)-1].(*discoveryv1.EndpointSlice)
			i := 0
			for b.Loop() {
				s := was.DeepCopy()
				s.Endpoints[0].Addresses = []string{netip.AddrFrom4([4]byte{10, 10, byte(i >> 8), byte(i)}).String()}
				i++
				r.set(s)
				r.sync()
			}
			b.ReportMetric(float64(b.Elapsed())/float64(time.Millisecond)/float64(b.N), "ms/op")
		})
	}
}
