package nodeipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestPool(t *testing.T) {
	for _, c := range []struct {
		cluster string
		bits    int
		used    []string
		want    []string // until there are no more
	}{
		{"10.0.0.0/22", 24, nil, []string{"10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"}},
		{"10.0.0.77/22", 24, []string{"10.0.1.0/24"}, []string{"10.0.0.0/24", "10.0.2.0/24", "10.0.3.0/24"}},
		{"10.0.0.0/22", 24, []string{"10.0.2.0/23"}, []string{"10.0.0.0/24", "10.0.1.0/24"}},
		{"10.0.0.0/22", 24, []string{"10.0.2.128/25"}, []string{"10.0.0.0/24", "10.0.1.0/24", "10.0.3.0/24"}},
		{"10.0.0.0/22", 24, []string{"10.0.0.0/8"}, nil},
		{"10.0.0.0/22", 24, []string{"10.1.0.0/24", "fd00::/64"}, []string{"10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"}},
		{"10.0.0.0/24", 24, nil, []string{"10.0.0.0/24"}},
		{"fd00:1::/62", 64, []string{"fd00:1:0:1::/64"}, []string{"fd00:1::/64", "fd00:1:0:2::/64", "fd00:1:0:3::/64"}},
	} {
		p, err := newPool(controllers.PodRange{Cluster: netip.MustParsePrefix(c.cluster), NodeBits: c.bits})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range c.used {
			p.hold(netip.MustParsePrefix(u), 1)
		}
		var got []string
		for r, ok := p.take(); ok; r, ok = p.take() {
			got = append(got, r.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s less %v: %v, want %v", c.cluster, c.used, got, c.want)
		}
		for _, r := range got {
			p.hold(netip.MustParsePrefix(r), -1)
		}
		if p.free != len(got) {
			t.Errorf("%s: %d free when all are given back, want %d", c.cluster, p.free, len(got))
		}
	}
}

func TestSelection(t *testing.T) {
	for _, c := range []struct {
		s    Selection
		want string // ranges, or part of the error
	}{
		{Selection{NoAllocation: true}, "[]"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0/16"}}, "[{10.1.0.0/16 24}]"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0/16"}, MaskSize: 26}, "[{10.1.0.0/16 26}]"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0/16"}, MaskSizeIPv4: 25}, "[{10.1.0.0/16 25}]"},
		{Selection{ClusterCIDRs: []string{"fd00::/56", "10.1.0.0/16"}, MaskSizeIPv4: 25}, "[{fd00::/56 64} {10.1.0.0/16 25}]"},
		{Selection{}, "give --cluster-cidr"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0"}}, "give a range like"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0/16", "10.2.0.0/16"}}, "two ranges of one family"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0/16", "fd00::/56", "10.2.0.0/16"}}, "3 ranges"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0/16", "fd00::/56"}, MaskSize: 24}, "usage of --node-cidr-mask-size is not allowed with dual-stack clusters"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0/16"}, MaskSize: 24, MaskSizeIPv4: 24}, "not allowed if --node-cidr-mask-size is set"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0/16"}, MaskSizeIPv6: 64}, "not of the family"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0/25"}}, "smaller than a node's"},
		{Selection{ClusterCIDRs: []string{"10.1.0.0/16"}, MaskSize: 33}, "cannot have a mask of 33 bits"},
		{Selection{ClusterCIDRs: []string{"fd00::/40"}}, "more than 65536 nodes"},
	} {
		r, err := c.s.Ranges()
		if got := fmt.Sprint(r); err == nil && got != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %s %v, want %s", c.s, got, err, c.want)
		}
	}
	for nodes, want := range map[int]string{0: "[{10.244.0.0/16 24}]", 254: "[{10.244.0.0/16 24}]", 5000: "[{10.128.0.0/9 24}]", 50_000: "[{10.128.0.0/9 25}]"} {
		var s Selection
		s.Complete(nodes)
		if r, err := s.Ranges(); fmt.Sprint(r) != want {
			t.Errorf("%d nodes: %v %v, want %s", nodes, r, err, want)
		}
	}
}

// ranges makes the controller give ranges out of these.
func ranges(cidrs ...string) func(*controllers.Context) {
	return func(c *controllers.Context) {
		s := Selection{ClusterCIDRs: cidrs}
		c.PodRanges, _ = s.Ranges()
	}
}

func TestNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := controllertest.NewWith(t, func(c *controllers.Context) {
			ranges("10.0.0.0/22", "fd00::/62")(c)
			c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}
		}, New)
		nodes := c.Client.CoreV1().Nodes()
		create := func(name string, cidrs ...string) {
			t.Helper()
			n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.NodeSpec{PodCIDRs: cidrs}}
			controllertest.Must[*v1.Node](t)(nodes.Create(ctx, n, metav1.CreateOptions{}))
			c.Advance(0)
		}
		want := func(name string, cidrs ...string) {
			t.Helper()
			n := controllertest.Must[*v1.Node](t)(nodes.Get(ctx, name, metav1.GetOptions{}))
			if !slices.Equal(n.Spec.PodCIDRs, cidrs) || len(cidrs) > 0 && n.Spec.PodCIDR != cidrs[0] {
				t.Errorf("%s has %q %q, want %q", name, n.Spec.PodCIDR, n.Spec.PodCIDRs, cidrs)
			}
		}
		remove := func(name string) {
			t.Helper()
			if err := nodes.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			c.Advance(0)
		}
		create("a")
		want("a", "10.0.0.0/24", "fd00::/64")
		create("own", "10.0.2.0/24")
		create("b")
		want("b", "10.0.3.0/24", "fd00:0:0:1::/64")
		create("c")
		want("c")
		if got := c.Events(); !slices.Equal(got, []string{"Normal CIDRNotAvailable Node c status is now: CIDRNotAvailable"}) {
			t.Errorf("events: %q", got)
		}
		// The Node's heartbeats do not repeat the event.
		n := controllertest.Must[*v1.Node](t)(nodes.Get(ctx, "c", metav1.GetOptions{})).DeepCopy()
		n.Labels = map[string]string{"a": "b"}
		controllertest.Must[*v1.Node](t)(nodes.Update(ctx, n, metav1.UpdateOptions{}))
		c.Advance(0)
		if got := c.Events(); len(got) > 0 {
			t.Errorf("events of a Node that waits: %q", got)
		}
		c.Restart()
		c.Events()
		remove("own")
		want("c", "10.0.2.0/24", "fd00:0:0:2::/64")
		remove("a")
		create("a2")
		want("a2", "10.0.0.0/24", "fd00:0:0:3::/64")
	})
}

// TestLostWrites checks that a Node whose write has failed gets the same ranges, and
// no range is lost.
func TestLostWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := controllertest.NewWith(t, ranges("10.0.0.0/23"), New)
		failures := 3
		c.Client.PrependReactor("patch", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
			if failures > 0 {
				failures--
				return true, nil, errors.New("the connection was lost")
			}
			return false, nil, nil
		})
		for i, name := range []string{"a", "b"} {
			controllertest.Must[*v1.Node](t)(c.Client.CoreV1().Nodes().Create(ctx, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
			c.Advance(1e9)
			n := controllertest.Must[*v1.Node](t)(c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}))
			if want := fmt.Sprintf("10.0.%d.0/24", i); n.Spec.PodCIDR != want {
				t.Errorf("%s has %q, want %s", name, n.Spec.PodCIDR, want)
			}
		}
		if got := c.Events(); !slices.Contains(got, "Normal CIDRAssignmentFailed Node a status is now: CIDRAssignmentFailed") {
			t.Errorf("events: %q", got)
		}
	})
}
