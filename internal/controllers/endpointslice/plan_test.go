package endpointslice

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

const maxEndpoints = 100

func service(families ...v1.IPFamily) *v1.Service {
	if len(families) == 0 {
		families = []v1.IPFamily{v1.IPv4Protocol}
	}
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "svc"}, Spec: v1.ServiceSpec{
		ClusterIP: "10.96.0.9", IPFamilies: families, Selector: map[string]string{"app": "web"},
		Ports: []v1.ServicePort{{Name: "http", Port: 80, Protocol: v1.ProtocolTCP, TargetPort: intstr.FromInt32(8080)}}}}
}

func pod(name, node string, isReady bool, ips ...string) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name), Labels: map[string]string{"app": "web"}}, Spec: v1.PodSpec{NodeName: node}, Status: v1.PodStatus{Phase: v1.PodRunning}}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, v1.PodIP{IP: ip})
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
	p.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionFalse}}
	if isReady {
		p.Status.Conditions[0].Status = v1.ConditionTrue
	}
	return p
}

// endpointsNamed makes endpoints from..to of pods of their names.
func endpointsNamed(from, to int) (out []discoveryv1.Endpoint) {
	for i := from; i < to; i++ {
		out = append(out, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.%d.%d", i/200, i%200)}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
			TargetRef: &v1.ObjectReference{Kind: "Pod", Name: fmt.Sprint("p", i)}})
	}
	return out
}

func sliceOf(name string, ports []discoveryv1.EndpointPort, endpoints []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := newSlice(service(), discoveryv1.AddressTypeIPv4, ports, labelsOf(service()))
	s.Name, s.Endpoints = name, endpoints
	return s
}

// sizes returns the names and numbers of endpoints.
func sizes(all []*discoveryv1.EndpointSlice) string {
	var out []string
	for _, s := range all {
		out = append(out, fmt.Sprintf("%s:%d", s.Name, len(s.Endpoints)))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestPlan(t *testing.T) {
	ports := endpointPorts(service(), []int32{8080})
	other := endpointPorts(service(), []int32{9090})
	relabelled := sliceOf("l", ports, endpointsNamed(0, 5))
	relabelled.Labels = map[string]string{discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: managedBy, "old": "x"}
	former := sliceOf("f", ports, endpointsNamed(0, 5))
	former.OwnerReferences[0].UID = "another"
	for _, c := range []struct {
		name                              string
		want                              []discoveryv1.Endpoint
		existing                          []*discoveryv1.EndpointSlice
		create, update, remove, unchanged string
	}{
		{name: "nothing", create: ":0"},
		{name: "nothing, and an empty slice says so", existing: []*discoveryv1.EndpointSlice{sliceOf("e", nil, nil)}, unchanged: "e:0"},
		{name: "the last goes", existing: []*discoveryv1.EndpointSlice{sliceOf("a", ports, endpointsNamed(0, 1))}, update: "a:0"},
		{name: "new", want: endpointsNamed(0, 250), create: ":100 :100 :50"},
		{name: "as it is", want: endpointsNamed(0, 5), existing: []*discoveryv1.EndpointSlice{sliceOf("a", ports, endpointsNamed(0, 5))}, unchanged: "a:5"},
		{name: "the fullest that takes all", want: endpointsNamed(0, 120), existing: []*discoveryv1.EndpointSlice{sliceOf("a", ports, endpointsNamed(0, 99)), sliceOf("b", ports, endpointsNamed(99, 110)), sliceOf("c", ports, endpointsNamed(110, 118))},
			update: "b:13", unchanged: "a:99 c:8"},
		{name: "one that changes anyway first", want: endpointsNamed(1, 112), existing: []*discoveryv1.EndpointSlice{sliceOf("a", ports, endpointsNamed(0, 100)), sliceOf("b", ports, endpointsNamed(100, 110))},
			update: "a:100 b:11"},
		{name: "fits in the one that changes", want: endpointsNamed(1, 111), existing: []*discoveryv1.EndpointSlice{sliceOf("a", ports, endpointsNamed(0, 100)), sliceOf("b", ports, endpointsNamed(100, 110))},
			update: "a:100", unchanged: "b:10"},
		{name: "other ports take the place", want: endpointsNamed(0, 3), existing: []*discoveryv1.EndpointSlice{sliceOf("o", other, endpointsNamed(0, 3))}, update: "o:3"},
		{name: "labels", want: endpointsNamed(0, 5), existing: []*discoveryv1.EndpointSlice{relabelled}, update: "l:5"},
		{name: "of a former Service of the name", want: endpointsNamed(0, 5), existing: []*discoveryv1.EndpointSlice{former}, create: ":5", remove: "f:5"},
		{name: "one slice too many", want: endpointsNamed(0, 5), existing: []*discoveryv1.EndpointSlice{sliceOf("a", ports, endpointsNamed(0, 5)), sliceOf("b", ports, endpointsNamed(5, 9))}, remove: "b:4", unchanged: "a:5"},
		{name: "twice the same", want: endpointsNamed(0, 5), existing: []*discoveryv1.EndpointSlice{sliceOf("a", ports, endpointsNamed(0, 5)), sliceOf("b", ports, endpointsNamed(0, 5))}, remove: "b:5", unchanged: "a:5"},
	} {
		var groups []*group
		if c.want != nil {
			groups = []*group{{ports: ports, endpoints: c.want}}
		}
		before := sizes(c.existing)
		p := newPlan(service(), discoveryv1.AddressTypeIPv4, groups, c.existing, maxEndpoints)
		p.reuse(service())
		for _, x := range [][3]string{{"created", sizes(p.create), c.create}, {"updated", sizes(p.update), c.update}, {"deleted", sizes(p.delete), c.remove}, {"left", sizes(p.unchanged), c.unchanged}} {
			if x[1] != x[2] {
				t.Errorf("%s: %s are %q, want %q", c.name, x[0], x[1], x[2])
			}
		}
		if sizes(c.existing) != before {
			t.Errorf("%s: the cache's slices are changed", c.name)
		}
		seen := map[identity]bool{}
		for _, s := range slices.Concat(p.create, p.update, p.unchanged) {
			for i := range s.Endpoints {
				if id := identify(&s.Endpoints[i]); seen[id] {
					t.Errorf("%s: %v is in two places", c.name, id)
				} else {
					seen[id] = true
				}
			}
		}
		if len(seen) != len(c.want) {
			t.Errorf("%s: %d endpoints, want %d", c.name, len(seen), len(c.want))
		}
	}
}

func TestTargets(t *testing.T) {
	svc := service()
	svc.Spec.Ports = append(svc.Spec.Ports, v1.ServicePort{Name: "admin", Port: 90, Protocol: v1.ProtocolTCP, TargetPort: intstr.FromString("admin")})
	named := pod("named", "n", true, "10.0.0.1")
	named.Spec.Containers = []v1.Container{{Ports: []v1.ContainerPort{{Name: "admin", ContainerPort: 9, Protocol: v1.ProtocolUDP}, {Name: "admin", ContainerPort: 99, Protocol: v1.ProtocolTCP}}}}
	sidecar := pod("sidecar", "n", true, "10.0.0.2")
	sidecar.Spec.InitContainers = []v1.Container{{Ports: []v1.ContainerPort{{Name: "admin", ContainerPort: 1, Protocol: v1.ProtocolTCP}}},
		{RestartPolicy: ptr.To(v1.ContainerRestartPolicyAlways), Ports: []v1.ContainerPort{{Name: "admin", ContainerPort: 77, Protocol: v1.ProtocolTCP}}}}
	over := pod("over", "n", false, "10.0.0.3")
	over.Status.Phase = v1.PodFailed
	var got []string
	for _, s := range targets(svc, []*v1.Pod{named, sidecar, over, pod("nowhere", "n", true), pod("unnamed", "n", true, "10.0.0.4")}) {
		got = append(got, s.pod.Name+" "+key(s.ports))
	}
	if want := "named 8080,99,; sidecar 8080,77,; unnamed 8080,0,"; strings.Join(got, "; ") != want {
		t.Errorf("targets are %q, want %q", strings.Join(got, "; "), want)
	}
}

func TestTruncate(t *testing.T) {
	addresses := func(n int) []v1.EndpointAddress { return make([]v1.EndpointAddress, n) }
	for _, c := range []struct{ subsets, want [][2]int }{
		{[][2]int{{600, 400}}, [][2]int{{600, 400}}},
		{[][2]int{{600, 900}}, [][2]int{{600, 400}}},
		{[][2]int{{1500, 10}, {500, 10}}, [][2]int{{750, 0}, {250, 0}}},
		{[][2]int{{100, 900}, {300, 300}}, [][2]int{{100, 450}, {300, 150}}},
	} {
		var all []v1.EndpointSubset
		for _, s := range c.subsets {
			all = append(all, v1.EndpointSubset{Addresses: addresses(s[0]), NotReadyAddresses: addresses(s[1])})
		}
		cut := truncate(all)
		var got [][2]int
		for _, s := range all {
			got = append(got, [2]int{len(s.Addresses), len(s.NotReadyAddresses)})
		}
		if !slices.Equal(got, c.want) || cut == slices.Equal(c.subsets, c.want) {
			t.Errorf("%v: %v, cut %v; want %v", c.subsets, got, cut, c.want)
		}
	}
}
