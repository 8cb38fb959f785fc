package endpointslice

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

// suite is a cluster in which both controllers run.
type suite struct {
	*controllertest.Cluster
	t *testing.T
}

func newSuite(t *testing.T) suite { return suite{controllertest.New(t, New, NewEndpoints), t} }

func (s suite) node(name, zone string) {
	s.t.Helper()
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelTopologyZone: zone}}, Status: v1.NodeStatus{
		Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("4")}, Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}}}
	controllertest.Must[*v1.Node](s.t)(s.Client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}))
}

func (s suite) pod(p *v1.Pod) {
	s.t.Helper()
	controllertest.Must[*v1.Pod](s.t)(s.Client.CoreV1().Pods("ns").Create(ctx, p, metav1.CreateOptions{}))
}

func (s suite) service(svc *v1.Service) {
	s.t.Helper()
	controllertest.Must[*v1.Service](s.t)(s.Client.CoreV1().Services("ns").Create(ctx, svc, metav1.CreateOptions{}))
}

func (s suite) changeService(f func(*v1.Service)) {
	s.t.Helper()
	svc := controllertest.Must[*v1.Service](s.t)(s.Client.CoreV1().Services("ns").Get(ctx, "web", metav1.GetOptions{}))
	f(svc)
	controllertest.Must[*v1.Service](s.t)(s.Client.CoreV1().Services("ns").Update(ctx, svc, metav1.UpdateOptions{}))
	s.Advance(5 * time.Second)
}

// list returns the slices, those of IPv4 first.
func (s suite) list() []discoveryv1.EndpointSlice {
	s.t.Helper()
	all := controllertest.Must[*discoveryv1.EndpointSliceList](s.t)(s.Client.DiscoveryV1().EndpointSlices("ns").List(ctx, metav1.ListOptions{})).Items
	slices.SortFunc(all, func(a, b discoveryv1.EndpointSlice) int { return cmp.Compare(a.AddressType, b.AddressType) })
	return all
}

// endpoints describes the endpoints of all slices: address, state and hints.
func (s suite) endpoints() string {
	s.t.Helper()
	var out []string
	for _, sl := range s.list() {
		for _, e := range sl.Endpoints {
			state := "ready"
			switch {
			case *e.Conditions.Terminating && *e.Conditions.Serving:
				state = "draining"
			case !*e.Conditions.Ready:
				state = "waiting"
			}
			text := strings.Join(e.Addresses, "+") + " " + state
			if e.Hints != nil {
				for _, n := range e.Hints.ForNodes {
					text += " node=" + n.Name
				}
				for _, z := range e.Hints.ForZones {
					text += " zone=" + z.Name
				}
			}
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (s suite) expect(want string) {
	s.t.Helper()
	if got := s.endpoints(); got != want {
		s.t.Errorf("the endpoints are %q, want %q", got, want)
	}
}

// TestEndpoints follows pods through their lives, in both forms.
func TestEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSuite(t)
		s.GracefulPods()
		s.node("a", "z1")
		s.pod(pod("one", "a", true, "10.0.0.1"))
		s.pod(pod("two", "a", false, "10.0.0.2"))
		svc := service()
		svc.Labels = map[string]string{"team": "x"}
		s.service(svc)
		s.Advance(5 * time.Second)
		s.expect("10.0.0.1 ready, 10.0.0.2 waiting")
		sl := s.list()[0]
		if sl.AddressType != discoveryv1.AddressTypeIPv4 || sl.Labels["team"] != "x" || sl.Labels[discoveryv1.LabelManagedBy] != managedBy || !strings.HasPrefix(sl.Name, "web-") ||
			*sl.Ports[0].Port != 8080 || *sl.Endpoints[0].Zone != "z1" || *sl.Endpoints[0].NodeName != "a" || sl.Endpoints[0].TargetRef.Name != "one" {
			t.Errorf("the slice is %+v", sl)
		}
		older := controllertest.Must[*v1.Endpoints](t)(s.Client.CoreV1().Endpoints("ns").Get(ctx, "web", metav1.GetOptions{}))
		if len(older.Subsets) != 1 || older.Subsets[0].Addresses[0].IP != "10.0.0.1" || older.Subsets[0].NotReadyAddresses[0].IP != "10.0.0.2" || older.Labels["team"] != "x" {
			t.Errorf("the Endpoints are %+v", older)
		}
		two := controllertest.Must[*v1.Pod](t)(s.Client.CoreV1().Pods("ns").Get(ctx, "two", metav1.GetOptions{}))
		s.SetReady(two, true)
		if err := s.Client.CoreV1().Pods("ns").Delete(ctx, "one", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.Advance(5 * time.Second)
		s.expect("10.0.0.1 draining, 10.0.0.2 ready")

		// What others delete or change comes back.
		if err := s.Client.DiscoveryV1().EndpointSlices("ns").Delete(ctx, sl.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Client.CoreV1().Endpoints("ns").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.Advance(time.Minute)
		s.expect("10.0.0.1 draining, 10.0.0.2 ready")
		if _, err := s.Client.CoreV1().Endpoints("ns").Get(ctx, "web", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
		s.changeService(func(svc *v1.Service) { svc.Spec.Selector = map[string]string{"app": "other"} })
		if all := s.list(); len(all) != 1 || len(all[0].Endpoints) != 0 || len(all[0].Ports) != 0 {
			t.Errorf("without pods: %+v", all)
		}
		if err := s.Client.CoreV1().Services("ns").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.Advance(5 * time.Second)
		if _, err := s.Client.CoreV1().Endpoints("ns").Get(ctx, "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the Endpoints of a Service that has gone: %v", err)
		}
	})
}

// TestFamilies checks that each family has slices of its own; those of one that
// the Service gives up go.
func TestFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSuite(t)
		s.node("a", "")
		s.pod(pod("both", "a", true, "10.0.0.1", "fd00::1"))
		s.pod(pod("four", "a", true, "10.0.0.2"))
		// Pods of the node's network share its address.
		s.pod(pod("host1", "a", true, "192.0.2.1"))
		s.pod(pod("host2", "a", true, "192.0.2.1"))
		s.service(service(v1.IPv6Protocol, v1.IPv4Protocol))
		s.Advance(5 * time.Second)
		s.expect("10.0.0.1 ready, 10.0.0.2 ready, 192.0.2.1 ready, 192.0.2.1 ready, fd00::1 ready")
		all := s.list()
		if len(all) != 2 || all[0].AddressType != discoveryv1.AddressTypeIPv4 || len(all[0].Endpoints) != 4 || all[1].AddressType != discoveryv1.AddressTypeIPv6 {
			t.Errorf("the slices are %+v", all)
		}
		// The older form has the first family.
		older := controllertest.Must[*v1.Endpoints](t)(s.Client.CoreV1().Endpoints("ns").Get(ctx, "web", metav1.GetOptions{}))
		if len(older.Subsets) != 1 || len(older.Subsets[0].Addresses) != 1 || older.Subsets[0].Addresses[0].IP != "fd00::1" {
			t.Errorf("the Endpoints are %+v", older.Subsets)
		}
		s.changeService(func(svc *v1.Service) { svc.Spec.IPFamilies = []v1.IPFamily{v1.IPv6Protocol} })
		s.expect("fd00::1 ready")
	})
}

// TestMissingNode checks that a pod whose node is not there waits for it, unless
// pods that are not ready are wanted, too.
func TestMissingNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSuite(t)
		s.node("a", "")
		s.pod(pod("one", "a", true, "10.0.0.1"))
		s.pod(pod("two", "b", false, "10.0.0.2"))
		s.service(service())
		s.Advance(time.Second)
		s.expect("10.0.0.1 ready")
		s.node("b", "")
		s.Advance(time.Hour)
		s.expect("10.0.0.1 ready, 10.0.0.2 waiting")
		s.changeService(func(svc *v1.Service) { svc.Spec.PublishNotReadyAddresses = true })
		if err := s.Client.CoreV1().Nodes().Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.changeService(func(svc *v1.Service) { svc.Labels = map[string]string{"a": "b"} })
		s.expect("10.0.0.1 ready, 10.0.0.2 ready")
	})
}

// TestHints follows a Service through the ways to prefer near endpoints.
func TestHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSuite(t)
		for i, zone := range []string{"z1", "z2"} {
			s.node(fmt.Sprint("n", i), zone)
		}
		for i := range 6 {
			s.pod(pod(fmt.Sprint("p", i), fmt.Sprint("n", i%2), i != 5, fmt.Sprint("10.0.0.", i)))
		}
		s.service(service())
		s.Advance(5 * time.Second)
		const none = "10.0.0.0 ready, 10.0.0.1 ready, 10.0.0.2 ready, 10.0.0.3 ready, 10.0.0.4 ready, 10.0.0.5 waiting"
		s.expect(none)
		s.changeService(func(svc *v1.Service) {
			svc.Spec.TrafficDistribution = ptr.To(v1.ServiceTrafficDistributionPreferSameZone)
		})
		s.expect("10.0.0.0 ready zone=z1, 10.0.0.1 ready zone=z2, 10.0.0.2 ready zone=z1, 10.0.0.3 ready zone=z2, 10.0.0.4 ready zone=z1, 10.0.0.5 waiting")
		s.changeService(func(svc *v1.Service) {
			svc.Spec.TrafficDistribution = ptr.To(v1.ServiceTrafficDistributionPreferSameNode)
		})
		s.expect("10.0.0.0 ready node=n0 zone=z1, 10.0.0.1 ready node=n1 zone=z2, 10.0.0.2 ready node=n0 zone=z1, 10.0.0.3 ready node=n1 zone=z2, 10.0.0.4 ready node=n0 zone=z1, 10.0.0.5 waiting")
		// Endpoints that come keep the others' hints.
		s.pod(pod("p6", "n0", true, "10.0.0.6"))
		s.Advance(5 * time.Second)
		if got := s.endpoints(); strings.Count(got, "node=n0") != 4 || strings.Count(got, "node=n1") != 2 {
			t.Errorf("after another: %q", got)
		}
		s.changeService(func(svc *v1.Service) {
			svc.Spec.TrafficDistribution = nil
			svc.Annotations = map[string]string{v1.AnnotationTopologyMode: "Auto"}
		})
		if got := s.endpoints(); strings.Count(got, "zone=z1") != 3 || strings.Count(got, "zone=z2") != 3 {
			t.Errorf("spread by what the zones can do: %q", got)
		}
		s.Events()
		s.changeService(func(svc *v1.Service) { svc.Annotations = nil })
		s.expect(none + ", 10.0.0.6 ready")
		if events := s.Events(); len(events) == 0 || !strings.Contains(events[0], "Warning TopologyAwareHintsDisabled Topology Aware Hints has been disabled") {
			t.Errorf("events %q", events)
		}
	})
}

// TestSurvives checks that whatever goes wrong on the way, each pod is in one slice
// in the end.
func TestSurvives(t *testing.T) {
	controllertest.Trial{Seeds: 40, Controllers: []controllertest.Constructor{New, NewEndpoints}, Actions: []controllertest.Action{
		func(c *controllertest.Cluster) {
			s := suite{c, t}
			s.node("a", "z")
			s.service(service(v1.IPv4Protocol, v1.IPv6Protocol))
			for i := range 110 {
				s.pod(pod(fmt.Sprint("p", i), "a", true, fmt.Sprint("10.0.0.", i), fmt.Sprintf("fd00::%x", i+1)))
				if i%50 == 49 {
					c.Advance(time.Millisecond) // the fake server holds 100 events for a watch
				}
			}
		},
		func(c *controllertest.Cluster) {
			for i := range 20 {
				if err := c.Client.CoreV1().Pods("ns").Delete(ctx, fmt.Sprint("p", i*5), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil && !apierrors.IsNotFound(err) {
					t.Fatal(err)
				}
			}
		},
		func(c *controllertest.Cluster) {
			s := suite{c, t}
			for i := range 30 {
				s.pod(pod(fmt.Sprint("q", i), "a", true, fmt.Sprint("10.0.1.", i), fmt.Sprintf("fd00::1:%x", i+1)))
			}
		},
	}, End: func(t *testing.T, c *controllertest.Cluster) {
		s := suite{c, t}
		seen := map[string]int{}
		for _, sl := range s.list() {
			if len(sl.Endpoints) > maxEndpoints {
				t.Errorf("a slice of %d", len(sl.Endpoints))
			}
			for _, e := range sl.Endpoints {
				seen[e.Addresses[0]]++
			}
		}
		for _, p := range c.Pods("ns") {
			for _, ip := range p.Status.PodIPs {
				if seen[ip.IP] != 1 {
					t.Errorf("%s is in %d slices", ip.IP, seen[ip.IP])
				}
				delete(seen, ip.IP)
			}
		}
		if len(seen) > 0 {
			t.Errorf("addresses of pods that have gone: %v", seen)
		}
		older := controllertest.Must[*v1.Endpoints](t)(c.Client.CoreV1().Endpoints("ns").Get(ctx, "web", metav1.GetOptions{}))
		if n := len(older.Subsets[0].Addresses); n != 120 {
			t.Errorf("the Endpoints have %d addresses, want 120", n)
		}
	}}.Survives(t)
}
