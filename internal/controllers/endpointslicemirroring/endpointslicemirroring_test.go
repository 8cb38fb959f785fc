package endpointslicemirroring

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func addresses(ips ...string) (out []v1.EndpointAddress) {
	for _, ip := range ips {
		out = append(out, v1.EndpointAddress{IP: ip})
	}
	return out
}

func port(name string, number int32) []v1.EndpointPort {
	return []v1.EndpointPort{{Name: name, Port: number, Protocol: v1.ProtocolTCP}}
}

// show returns slices as "family ports: addresses", those that are not ready in
// brackets.
func show(all []*discoveryv1.EndpointSlice) string {
	var out []string
	for _, s := range all {
		line := string(s.AddressType)
		for _, p := range s.Ports {
			line += fmt.Sprintf(" %s=%d", *p.Name, *p.Port)
		}
		line += ":"
		for _, e := range s.Endpoints {
			if *e.Conditions.Ready {
				line += " " + e.Addresses[0]
			} else {
				line += " (" + e.Addresses[0] + ")"
			}
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

func TestMirror(t *testing.T) {
	many := make([]string, maxPerSubset+5)
	for i := range many {
		many[i] = fmt.Sprintf("10.0.%d.%d", i>>8, i&0xff)
	}
	for _, c := range []struct {
		name    string
		subsets []v1.EndpointSubset
		want    string // empty if size is given
		size    int    // endpoints of the one slice
		left    skipped
	}{
		{name: "nothing"},
		{name: "ports only", subsets: []v1.EndpointSubset{{Ports: port("a", 80)}}},
		{name: "in order", subsets: []v1.EndpointSubset{{Ports: port("a", 80), Addresses: addresses("10.0.0.2", "10.0.0.1")}}, want: "IPv4 a=80: 10.0.0.1 10.0.0.2"},
		{name: "no ports", subsets: []v1.EndpointSubset{{Addresses: addresses("10.0.0.1")}}, want: "IPv4: 10.0.0.1"},
		{name: "not ready", subsets: []v1.EndpointSubset{{Ports: port("a", 80), Addresses: addresses("10.0.0.1"), NotReadyAddresses: addresses("10.0.0.2")}}, want: "IPv4 a=80: 10.0.0.1 (10.0.0.2)"},
		{name: "families", subsets: []v1.EndpointSubset{{Ports: port("a", 80), Addresses: addresses("10.0.0.1", "fd00:0::1")}}, want: "IPv4 a=80: 10.0.0.1; IPv6 a=80: fd00::1"},
		{name: "one address, two sets of ports", subsets: []v1.EndpointSubset{{Ports: port("a", 80), Addresses: addresses("10.0.0.1")}, {Ports: port("b", 81), Addresses: addresses("10.0.0.1")}},
			want: "IPv4 a=80: 10.0.0.1; IPv4 b=81: 10.0.0.1"},
		{name: "the same ports twice", subsets: []v1.EndpointSubset{{Ports: append(port("a", 80), port("b", 81)...), Addresses: addresses("10.0.0.1")}, {Ports: append(port("b", 81), port("a", 80)...), Addresses: addresses("10.0.0.2")}},
			want: "IPv4 a=80 b=81: 10.0.0.1 10.0.0.2"},
		{name: "leading zeros and no address", subsets: []v1.EndpointSubset{{Ports: port("a", 80), Addresses: addresses("010.000.0.1", "example.com")}}, want: "IPv4 a=80: 10.0.0.1", left: skipped{invalid: 1}},
		{name: "too many", subsets: []v1.EndpointSubset{{Ports: port("a", 80), Addresses: addresses(many[:998]...), NotReadyAddresses: addresses(many[998:]...)}}, size: maxPerSubset, left: skipped{excess: 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, left := mirror(&v1.Endpoints{Subsets: c.subsets})
			if left != c.left {
				t.Errorf("left %+v, want %+v", left, c.left)
			}
			if c.size > 0 {
				if len(got) != 1 || len(got[0].Endpoints) != c.size {
					t.Errorf("want one slice of %d endpoints, found %d slices", c.size, len(got))
				}
			} else if s := show(got); s != c.want {
				t.Errorf("%q, want %q", s, c.want)
			}
		})
	}
}

func TestEndpoint(t *testing.T) {
	ref := &v1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: "p"}
	got, _ := mirror(&v1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "svc", UID: "u",
		Labels:      map[string]string{"a": "b", discoveryv1.LabelManagedBy: "me", discoveryv1.LabelServiceName: "other"},
		Annotations: map[string]string{"c": "d", v1.EndpointsLastChangeTriggerTime: "x", v1.LastAppliedConfigAnnotation: "y"}},
		Subsets: []v1.EndpointSubset{{Addresses: []v1.EndpointAddress{{IP: "10.0.0.1", Hostname: "h", NodeName: ptr.To("n"), TargetRef: ref}},
			Ports: []v1.EndpointPort{{Port: 80, Protocol: v1.ProtocolUDP, AppProtocol: ptr.To("dns")}}}}})
	want := []*discoveryv1.EndpointSlice{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", GenerateName: "svc-", Annotations: map[string]string{"c": "d"},
			Labels:          map[string]string{"a": "b", "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io", "kubernetes.io/service-name": "svc"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Endpoints", Name: "svc", UID: "u", Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true)}}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}, Hostname: ptr.To("h"), NodeName: ptr.To("n"), TargetRef: ref}},
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To[int32](80), Protocol: ptr.To(v1.ProtocolUDP), AppProtocol: ptr.To("dns")}},
	}}
	if !equality.Semantic.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got[0], want[0])
	}
}

type cluster struct {
	*controllertest.Cluster
	t testing.TB
}

// create makes a Service without a selector, and Endpoints at 10.0.0.1.
func (c *cluster) create() {
	c.t.Helper()
	controllertest.Must[*v1.Service](c.t)(c.Client.CoreV1().Services("ns").Create(c.t.Context(), &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "svc"}}, metav1.CreateOptions{}))
	controllertest.Must[*v1.Endpoints](c.t)(c.Client.CoreV1().Endpoints("ns").Create(c.t.Context(), &v1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "svc"},
		Subsets: []v1.EndpointSubset{{Ports: port("a", 80), Addresses: addresses("10.0.0.1")}}}, metav1.CreateOptions{}))
}

func (c *cluster) endpoints(change func(*v1.Endpoints)) {
	c.t.Helper()
	if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		e, err := c.Client.CoreV1().Endpoints("ns").Get(c.t.Context(), "svc", metav1.GetOptions{})
		if err == nil {
			change(e)
			_, err = c.Client.CoreV1().Endpoints("ns").Update(c.t.Context(), e, metav1.UpdateOptions{})
		}
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) service(change func(*v1.Service)) {
	c.t.Helper()
	s := controllertest.Must[*v1.Service](c.t)(c.Client.CoreV1().Services("ns").Get(c.t.Context(), "svc", metav1.GetOptions{}))
	change(s)
	controllertest.Must[*v1.Service](c.t)(c.Client.CoreV1().Services("ns").Update(c.t.Context(), s, metav1.UpdateOptions{}))
}

func (c *cluster) slices() (out []*discoveryv1.EndpointSlice) {
	c.t.Helper()
	list := controllertest.Must[*discoveryv1.EndpointSliceList](c.t)(c.Client.DiscoveryV1().EndpointSlices("ns").List(c.t.Context(), metav1.ListOptions{}))
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out
}

func (c *cluster) want(when, want string) {
	c.t.Helper()
	c.Advance(time.Second)
	if got := show(c.slices()); got != want {
		c.t.Errorf("%s: %q, want %q", when, got, want)
	}
}

// TestLifecycle follows a mirror through all that ends and brings it back.
func TestLifecycle(t *testing.T) {
	const first = "IPv4 a=80: 10.0.0.1"
	label := func(value string) func(*v1.Endpoints) {
		return func(e *v1.Endpoints) { e.Labels = map[string]string{discoveryv1.LabelSkipMirror: value} }
	}
	for _, c := range []struct {
		name       string
		end, again func(*cluster)
	}{
		{"selector", func(c *cluster) {
			c.service(func(s *v1.Service) { s.Spec.Selector = map[string]string{"a": "b"} })
		}, func(c *cluster) { c.service(func(s *v1.Service) { s.Spec.Selector = nil }) }},
		{"label", func(c *cluster) { c.endpoints(label("true")) }, func(c *cluster) { c.endpoints(label("false")) }},
		{"lock", func(c *cluster) {
			c.endpoints(func(e *v1.Endpoints) {
				e.Annotations = map[string]string{"control-plane.alpha.kubernetes.io/leader": "{}"}
			})
		}, func(c *cluster) { c.endpoints(func(e *v1.Endpoints) { e.Annotations = nil }) }},
		{"no addresses", func(c *cluster) { c.endpoints(func(e *v1.Endpoints) { e.Subsets[0].Addresses = nil }) },
			func(c *cluster) {
				c.endpoints(func(e *v1.Endpoints) { e.Subsets[0].Addresses = addresses("10.0.0.1") })
			}},
		{"Endpoints", func(c *cluster) {
			if err := c.Client.CoreV1().Endpoints("ns").Delete(c.t.Context(), "svc", metav1.DeleteOptions{}); err != nil {
				c.t.Fatal(err)
			}
		}, nil},
		{"Service", func(c *cluster) {
			if err := c.Client.CoreV1().Services("ns").Delete(c.t.Context(), "svc", metav1.DeleteOptions{}); err != nil {
				c.t.Fatal(err)
			}
		}, func(c *cluster) {
			controllertest.Must[*v1.Service](c.t)(c.Client.CoreV1().Services("ns").Create(c.t.Context(), &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "svc"}}, metav1.CreateOptions{}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := &cluster{controllertest.New(t, New), t}
				cl.create()
				cl.want("at first", first)
				c.end(cl)
				cl.want("then", "")
				if c.again != nil {
					c.again(cl)
					cl.want("again", first)
				}
			})
		})
	}
}

// TestUpdate checks that a slice stays what it is while its address type does,
// and is written only when it says something else.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{controllertest.New(t, New), t}
		c.create()
		c.want("at first", "IPv4 a=80: 10.0.0.1")
		name := c.slices()[0].Name
		c.endpoints(func(e *v1.Endpoints) { e.Subsets[0].Addresses = addresses("10.0.0.2", "10.0.0.3") })
		c.want("other addresses", "IPv4 a=80: 10.0.0.2 10.0.0.3")
		version := c.slices()[0].ResourceVersion
		c.endpoints(func(e *v1.Endpoints) {
			e.Subsets[0].Addresses = addresses("10.0.0.3", "10.0.0.2")
			e.Annotations = map[string]string{v1.EndpointsLastChangeTriggerTime: "now"}
		})
		c.want("another order", "IPv4 a=80: 10.0.0.2 10.0.0.3")
		if v := c.slices()[0].ResourceVersion; v != version {
			t.Errorf("a slice that had not changed was written: version %s, want %s", v, version)
		}
		c.endpoints(func(e *v1.Endpoints) { e.Subsets[0].Ports = port("a", 81) })
		c.want("other ports", "IPv4 a=81: 10.0.0.2 10.0.0.3")
		c.endpoints(func(e *v1.Endpoints) { e.Labels = map[string]string{"x": "y"} })
		c.want("a label", "IPv4 a=81: 10.0.0.2 10.0.0.3")
		if s := c.slices()[0]; s.Name != name || s.Labels["x"] != "y" {
			t.Errorf("want %s with the label, found %+v", name, s.ObjectMeta)
		}
		forged := c.slices()[0]
		forged.Endpoints[0].Addresses[0] = "10.6.6.6"
		controllertest.Must[*discoveryv1.EndpointSlice](t)(c.Client.DiscoveryV1().EndpointSlices("ns").Update(t.Context(), forged, metav1.UpdateOptions{}))
		c.want("another's change", "IPv4 a=81: 10.0.0.2 10.0.0.3")
		c.endpoints(func(e *v1.Endpoints) { e.Subsets[0].Addresses = addresses("fd00::1") })
		c.want("another family", "IPv6 a=81: fd00::1")
		if err := c.Client.DiscoveryV1().EndpointSlices("ns").Delete(t.Context(), c.slices()[0].Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.want("another's deletion", "IPv6 a=81: fd00::1")
		if e := c.Events(); len(e) > 0 {
			t.Errorf("events %q", e)
		}
	})
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{controllertest.New(t, New), t}
		c.create()
		c.endpoints(func(e *v1.Endpoints) {
			e.Subsets[0].Addresses = addresses("nowhere", "10.0.0.1")
			for i := range maxPerSubset {
				e.Subsets[0].NotReadyAddresses = append(e.Subsets[0].NotReadyAddresses, v1.EndpointAddress{IP: fmt.Sprintf("10.1.%d.%d", i>>8, i&0xff)})
			}
		})
		c.Advance(time.Second)
		c.HasEvent("Warning InvalidIPAddress Skipped 1 invalid IP addresses when mirroring to EndpointSlices")
		c.HasEvent("Warning TooManyAddressesToMirror A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 2 addresses were skipped")
	})
}

// TestSurvives checks that whatever goes wrong on the way, there is one slice
// in the end.
func TestSurvives(t *testing.T) {
	with := func(ips ...string) func(*controllertest.Cluster) {
		return func(c *controllertest.Cluster) {
			(&cluster{c, t}).endpoints(func(e *v1.Endpoints) { e.Subsets[0].Addresses = addresses(ips...) })
		}
	}
	controllertest.Trial{Seeds: 40, Controllers: []controllertest.Constructor{New}, Actions: []controllertest.Action{
		func(c *controllertest.Cluster) { (&cluster{c, t}).create() },
		with("10.0.0.2", "fd00::1"), with(), with("10.0.0.3"),
	}, End: func(t *testing.T, c *controllertest.Cluster) {
		(&cluster{c, t}).want("in the end", "IPv4 a=80: 10.0.0.3")
	}}.Survives(t)
}

// TestStaleCache checks that a slice that the server has and the cache has not
// seen is brought up to date, and not made again.
func TestStaleCache(t *testing.T) {
	e := &v1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "svc"}, Subsets: []v1.EndpointSubset{{Ports: port("a", 80), Addresses: addresses("10.0.0.1")}}}
	stored, _ := mirror(e)
	stored[0].Name = "svc-abcde"
	client := fake.NewClientset(stored[0])
	empty := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	m := &controller{client: client, slices: discoverylisters.NewEndpointSliceLister(empty)}
	e.Subsets[0].Addresses = addresses("10.0.0.2")
	want, _ := mirror(e)
	if err := m.write(t.Context(), e, want); err != nil {
		t.Fatal(err)
	}
	list := controllertest.Must[*discoveryv1.EndpointSliceList](t)(client.DiscoveryV1().EndpointSlices("ns").List(t.Context(), metav1.ListOptions{}))
	if len(list.Items) != 1 || list.Items[0].Name != "svc-abcde" || list.Items[0].Endpoints[0].Addresses[0] != "10.0.0.2" {
		t.Errorf("want svc-abcde with 10.0.0.2, found %+v", list.Items)
	}
}
