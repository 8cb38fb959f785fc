package conformance

import (
	"fmt"
	"hash/fnv"
	"strings"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

var _ = It("[sig-network] API Server should have Endpoints and EndpointSlices pointing to API Server", func(t *T) {
	e := got[*v1.Endpoints](t)(t.Client.CoreV1().Endpoints("default").Get(t.Context(), "kubernetes", get))
	if len(e.Subsets) == 0 || len(e.Subsets[0].Addresses) == 0 {
		t.Errorf("Endpoints: %+v", e)
	}
	list := got[*discoveryv1.EndpointSliceList](t)(t.Client.DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"}))
	if len(list.Items) == 0 || len(list.Items[0].Endpoints) == 0 {
		t.Errorf("EndpointSlices: %+v", list.Items)
	}
})

var _ = It("[sig-network] API Server should provide secure master service", func(t *T) {
	s := got[*v1.Service](t)(t.Client.CoreV1().Services("default").Get(t.Context(), "kubernetes", get))
	if len(s.Spec.Ports) != 1 || s.Spec.Ports[0].Name != "https" || s.Spec.Ports[0].Port != 443 {
		t.Errorf("%+v", s.Spec.Ports)
	}
})

// empty checks that a Service that selects nothing has an Endpoints and an
// EndpointSlice, which are deleted with it.
func empty(t *T) {
	t.service("empty", "nobody")
	t.endpoints("empty")
	slices := func() (int, error) {
		l, err := t.Client.DiscoveryV1().EndpointSlices(t.NS).List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=empty"})
		if err != nil {
			return 0, err
		}
		return len(l.Items), nil
	}
	harness.Succeeds(t, "an EndpointSlice", func() error {
		n, err := slices()
		if err == nil && n != 1 {
			err = fmt.Errorf("%d", n)
		}
		return err
	})
	t.must(t.Client.CoreV1().Services(t.NS).Delete(t.Context(), "empty", remove))
	harness.Succeeds(t, "the end of both", func() error {
		n, err := slices()
		_, gone := t.Client.CoreV1().Endpoints(t.NS).Get(t.Context(), "empty", get)
		if err == nil && (n != 0 || !apierrors.IsNotFound(gone)) {
			err = fmt.Errorf("%d EndpointSlices; Endpoints: %w", n, gone)
		}
		return err
	})
}

var (
	_ = It("[sig-network] EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods", empty)
	_ = It("[sig-network] EndpointsController should create and delete Endpoints for a Service with a selector that matches no pods", empty)
)

// matching checks that pods become endpoints of the Services that select them.
func matching(t *T) {
	labels := map[string]string{"app": "match", "foo": "bar"}
	p1, p2 := t.run("pod1", labels), t.run("pod2", map[string]string{"app": "match"})
	for name, want := range map[string][]string{"foo": {p1.Status.PodIP}, "both": {p1.Status.PodIP, p2.Status.PodIP}} {
		t.service(name, "match", func(s *v1.Service) {
			if name == "foo" {
				s.Spec.Selector = map[string]string{"foo": "bar"}
			}
		})
		if name == "foo" {
			t.endpoints(name, "pod1:80")
		} else {
			t.endpoints(name, "pod1:80", "pod2:80")
		}
		harness.Succeeds(t, "EndpointSlices of "+name, func() error {
			l, err := t.Client.DiscoveryV1().EndpointSlices(t.NS).List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + name})
			if err != nil {
				return err
			}
			have := map[string]bool{}
			for _, s := range l.Items {
				for _, e := range s.Endpoints {
					if ptr.Deref(e.Conditions.Ready, true) && e.NodeName != nil && e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
						have[e.Addresses[0]] = true
					}
				}
			}
			for _, ip := range want {
				if !have[ip] || len(have) != len(want) {
					return fmt.Errorf("%v, want %v", have, want)
				}
			}
			return nil
		})
	}
}

var (
	_ = InContainers("[sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service", matching)
	_ = InContainers("[sig-network] EndpointsController should create Endpoints for Pods matching a Service", matching)
)

// slice creates a slice of a Service.
func (t *T) slice(name, service string, ports map[string]int32, addresses ...string) {
	t.Helper()
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/service-name": service, discoveryv1.LabelManagedBy: "e2e-test"}},
		AddressType: discoveryv1.AddressTypeIPv4}
	for n, p := range ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: ptr.To(n), Port: ptr.To(p), Protocol: ptr.To(v1.ProtocolTCP)})
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	got[*discoveryv1.EndpointSlice](t)(t.Client.DiscoveryV1().EndpointSlices(t.NS).Create(t.Context(), s, create))
}

func withoutSelector(s *v1.Service) {
	s.Spec.Selector = nil
	s.Spec.Ports = []v1.ServicePort{{Name: "port80", Port: 80, Protocol: v1.ProtocolTCP}, {Name: "port81", Port: 81, Protocol: v1.ProtocolTCP}}
}

var _ = InContainers("[sig-network] EndpointSlice should support a Service with multiple endpoint IPs specified in multiple EndpointSlices", func(t *T) {
	client := t.clientPod()
	p1, p2 := t.run("pod1", nil), t.run("pod2", nil)
	s := t.service("custom", "", withoutSelector)
	ports := map[string]int32{"port80": 80, "port81": 8080}
	t.slice("custom-1", "custom", ports, p1.Status.PodIP)
	t.slice("custom-2", "custom", ports, p2.Status.PodIP)
	for _, port := range []int32{80, 81} {
		t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, port, "pod1", "pod2")
	}
})

var _ = InContainers("[sig-network] EndpointSlice should support a Service with multiple ports specified in multiple EndpointSlices", func(t *T) {
	client := t.clientPod()
	p := t.run("pod1", nil)
	s := t.service("custom", "", withoutSelector)
	t.slice("custom-1", "custom", map[string]int32{"port80": 80}, p.Status.PodIP)
	t.slice("custom-2", "custom", map[string]int32{"port81": 8080}, p.Status.PodIP)
	for _, port := range []int32{80, 81} {
		t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, port, "pod1")
	}
})

var _ = It("[sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete", func(t *T) {
	t.service("custom", "", withoutSelector)
	mirrored := func(want string) {
		t.Helper()
		harness.Succeeds(t, "a mirror with "+want, func() error {
			l, err := t.Client.DiscoveryV1().EndpointSlices(t.NS).List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=custom"})
			if err != nil {
				return err
			}
			var have []string
			for _, s := range l.Items {
				for _, e := range s.Endpoints {
					for _, p := range s.Ports {
						have = append(have, fmt.Sprintf("%s %s:%d", s.Labels[discoveryv1.LabelManagedBy], strings.Join(e.Addresses, ","), ptr.Deref(p.Port, 0)))
					}
				}
			}
			if got := strings.Join(have, "; "); got != want || want == "" && len(l.Items) > 0 {
				err = fmt.Errorf("%d slices: %q, want %q", len(l.Items), got, want)
			}
			return err
		})
	}
	client := t.Client.CoreV1().Endpoints(t.NS)
	e := got[*v1.Endpoints](t)(client.Create(t.Context(), &v1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "custom"},
		Subsets: []v1.EndpointSubset{{Ports: []v1.EndpointPort{{Port: 80}}, Addresses: []v1.EndpointAddress{{IP: "10.1.2.3"}}}}}, create))
	mirrored("endpointslicemirroring-controller.k8s.io 10.1.2.3:80")
	e.Subsets[0].Addresses[0].IP = "10.2.3.4"
	got[*v1.Endpoints](t)(client.Update(t.Context(), e, update))
	mirrored("endpointslicemirroring-controller.k8s.io 10.2.3.4:80")
	t.must(client.Delete(t.Context(), "custom", remove))
	mirrored("")
})

var _ = It("[sig-network] EndpointSlice should support creating EndpointSlice API operations", func(t *T) {
	t.operate(operations{gvr: discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), one: func(name string) *unstructured.Unstructured {
		return t.object("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: %s}\naddressType: IPv4\nendpoints: [{addresses: [10.1.2.3], conditions: {ready: true}}]\nports: [{name: a, port: 80, protocol: TCP}]\n", name)
	}})
})

var _ = It("[sig-network] Endpoints should test the lifecycle of an Endpoint", func(t *T) {
	t.operate(operations{gvr: schema.GroupVersionResource{Version: "v1", Resource: "endpoints"}, one: func(name string) *unstructured.Unstructured {
		return t.object("apiVersion: v1\nkind: Endpoints\nmetadata: {name: %s}\nsubsets: [{addresses: [{ip: 10.0.0.24}], ports: [{name: http, port: 80, protocol: TCP}]}]\n", name)
	}})
})

var _ = It("[sig-network] Ingress API should support creating Ingress API operations", func(t *T) {
	t.operate(operations{gvr: schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"}, one: func(name string) *unstructured.Unstructured {
		return t.object("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: %s}\nspec: {defaultBackend: {service: {name: default-backend, port: {number: 80}}}}\n", name)
	}, status: func(u *unstructured.Unstructured) {
		u.Object["status"] = dict{"loadBalancer": dict{"ingress": []any{dict{"ip": "169.1.1.1"}}}}
	}})
})

var _ = It("[sig-network] IngressClass API should support creating IngressClass API operations", func(t *T) {
	t.operate(operations{cluster: true, gvr: schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ingressclasses"}, one: func(name string) *unstructured.Unstructured {
		return t.object("apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: %s}\nspec: {controller: example.com/controller}\n", name)
	}})
})

// number maps each name to a number of 16 bits.
func number(name string) uint16 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return uint16(h.Sum32())
}

var _ = It("[sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations", func(t *T) {
	t.operate(operations{cluster: true, gvr: schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ipaddresses"}, one: func(name string) *unstructured.Unstructured {
		n := number(name)
		return t.object("apiVersion: networking.k8s.io/v1\nkind: IPAddress\nmetadata: {name: 172.31.%d.%d}\nspec: {parentRef: {group: \"\", resource: services, namespace: default, name: %s}}\n", n>>8, n&0xff, name)
	}})
})

var _ = It("[sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations", func(t *T) {
	t.operate(operations{cluster: true, gvr: schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "servicecidrs"}, one: func(name string) *unstructured.Unstructured {
		n := number(name)
		return t.object("apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: %s}\nspec: {cidrs: [10.%d.%d.0/28]}\n", name, 128|n>>9, n&0xff)
	}, status: func(u *unstructured.Unstructured) {
		conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		conditions = append(conditions, dict{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test", "lastTransitionTime": "2026-01-01T00:00:00Z"})
		u.Object["status"] = dict{"conditions": conditions}
	}, statusOnly: true})
})
