package podnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"
)

// countingKernel counts what is asked of it. All nodes are on its segment.
type countingKernel struct {
	changes                chan struct{}
	ways, applies, forward int
	routes                 int // of the last state
	fails                  bool
}

func (k *countingKernel) Way(netip.Addr) (Way, error) {
	k.ways++
	return Way{Link: 1, MTU: 1500, Direct: true}, nil
}

func (k *countingKernel) IPv6() bool { return true }

func (k *countingKernel) Occupied() ([]netip.Prefix, error) { return nil, nil }

func (k *countingKernel) Apply(s State) error {
	k.applies++
	k.routes = len(s.Routes)
	if k.fails {
		return errors.New("the kernel does not")
	}
	return nil
}

func (k *countingKernel) Changes(context.Context) (<-chan struct{}, error) { return k.changes, nil }

func (k *countingKernel) Forward() error {
	k.forward++
	return nil
}

// TestNetwork checks what is looked at after which event: firewalls and the machine's own
// part every few seconds, and the ways to nodes only after the kernel has reported a
// change, or after a minute.
func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		node := func(i int) *v1.Node {
			return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}, Spec: v1.NodeSpec{PodCIDRs: []string{fmt.Sprintf("10.244.%d.0/24", i)}},
				Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: fmt.Sprintf("192.0.2.%d", i)}}}}
		}
		api := fake.NewClientset(node(1), node(2), node(3))
		factory := informers.NewSharedInformerFactory(api, 0)
		k := &countingKernel{changes: make(chan struct{}, 1)}
		local := 0
		var problems []string
		n, err := New(Config{NodeName: "n1", Nodes: factory.Core().V1().Nodes().Informer(), Kernel: k, Clock: clock.RealClock{},
			Local:   func(Plan) error { local++; return nil },
			Problem: func(reason string, err error) { problems = append(problems, reason+": "+err.Error()) }})
		if err != nil {
			t.Fatal(err)
		}
		factory.Start(ctx.Done())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		is := func(when string, wait time.Duration, ways, applies, least int) {
			t.Helper()
			was := *k
			locals := local
			time.Sleep(wait)
			synctest.Wait()
			if k.ways-was.ways != ways || k.applies-was.applies != applies || k.forward-was.forward < least || local-locals < least {
				t.Errorf("%s: %d ways, %d states, %d firewalls and %d times the machine's own part; want %d, %d, and %[8]d or more", when,
					k.ways-was.ways, k.applies-was.applies, k.forward-was.forward, local-locals, ways, applies, least)
			}
		}
		time.Sleep(time.Second)
		if k.ways != 3 || k.routes != 2 {
			t.Errorf("at the start %d ways and %d routes, want 3 and 2", k.ways, k.routes)
		}
		is("without an event", 30*time.Second, 0, 0, 5)
		is("after a minute", 40*time.Second, 3, 1, 5)
		if _, err := api.CoreV1().Nodes().Create(ctx, node(4), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		is("with one node more", time.Second, 1, 1, 1)
		if k.routes != 3 {
			t.Errorf("%d routes, want 3", k.routes)
		}
		k.changes <- struct{}{}
		is("after a change of the network", time.Second, 4, 1, 1)
		k.fails = true
		k.changes <- struct{}{}
		was := k.applies
		time.Sleep(10 * time.Second)
		if tries := k.applies - was; tries < 5 {
			t.Errorf("%d tries in ten seconds of errors", tries)
		}
		k.fails = false
		time.Sleep(2 * retryPeriod)
		is("without an event again", 20*time.Second, 0, 0, 3)
		if len(problems) != 1 || problems[0] != Failed+": the kernel does not" {
			t.Errorf("problems: %q", problems)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
}
