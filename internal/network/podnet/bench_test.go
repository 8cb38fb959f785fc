package podnet

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

// benchNode is the i-th node of a large cluster, on the machine's segment, or behind
// its router.
func benchNode(i int, near bool) *v1.Node {
	at := netip.AddrFrom4([4]byte{172, 20, byte(i >> 8), byte(i)})
	if !near {
		at = netip.AddrFrom4([4]byte{172, 24, byte(i >> 8), byte(i)})
	}
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i), CreationTimestamp: metav1.Unix(int64(i), 0)},
		Spec:   v1.NodeSpec{PodCIDRs: []string{fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)}},
		Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: at.String()}}}}
}

// BenchmarkNodes measures a pass over 5,000 nodes, in a network namespace of its own: from
// nothing, with one node more, and where nothing has changed.
func BenchmarkNodes(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("a network namespace needs root")
	}
	const nodes = 5000
	for _, near := range []bool{true, false} {
		way := map[bool]string{true: "routes", false: "vxlan"}[near]
		for _, kind := range []string{"all", "one", "none"} {
			b.Run(way+"/"+kind, func(b *testing.B) {
				runtime.LockOSThread() // and never unlocked: the thread ends with the benchmark
				fail := func(err error) {
					b.Helper()
					if err != nil {
						b.Fatal(err)
					}
				}
				fail(unix.Unshare(unix.CLONE_NEWNET))
				l := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "uplink"}}
				fail(netlink.LinkAdd(l))
				addr, err := netlink.ParseAddr("172.20.0.0/14")
				fail(err)
				fail(netlink.AddrAdd(l, addr))
				fail(netlink.LinkSetUp(l))
				fail(netlink.RouteAdd(&netlink.Route{LinkIndex: l.Index, Gw: netip.MustParseAddr("172.23.255.254").AsSlice()}))
				store := cache.NewSharedIndexInformer(&cache.ListWatch{}, &v1.Node{}, 0, cache.Indexers{})
				self := benchNode(0, true)
				fail(store.GetStore().Add(self))
				n, err := New(Config{NodeName: self.Name, Nodes: store, Kernel: Netlink("none"), Local: func(Plan) error { return nil }, Clock: clock.RealClock{},
					Problem: func(reason string, err error) { b.Fatal(reason, err) }})
				fail(err)
				if kind != "all" {
					for i := 1; i < nodes; i++ {
						fail(store.GetStore().Add(benchNode(i, near)))
					}
					fail(n.pass(true))
				}
				more := nodes
				for b.Loop() {
					b.StopTimer()
					switch kind {
					case "all":
						fail(n.Kernel.Apply(State{}))
						for i := 1; i < nodes; i++ {
							fail(store.GetStore().Add(benchNode(i, near)))
						}
					case "one":
						fail(store.GetStore().Add(benchNode(more, near)))
						more++
					}
					b.StartTimer()
					fail(n.pass(true))
				}
				b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/pass")
			})
		}
	}
}
