package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

// run makes a pod of the demo image and waits until it is ready.
func (t *T) run(name string, labels map[string]string, change ...func(*v1.Pod)) *v1.Pod {
	t.Helper()
	p := pod(name, labels)
	for _, f := range change {
		f(p)
	}
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Create(t.Context(), p, create))
	harness.Succeeds(t, "pod "+name, func() (err error) {
		if p, err = t.Client.CoreV1().Pods(t.NS).Get(t.Context(), name, get); err != nil {
			return err
		}
		for _, c := range p.Status.Conditions {
			if c.Type == v1.PodReady && c.Status == v1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("%+v", p.Status)
	})
	return p
}

// clientPod makes a pod that only sleeps, and returns its name.
func (t *T) clientPod(change ...func(*v1.Pod)) string {
	t.Helper()
	sleep := func(p *v1.Pod) { p.Spec.Containers[0].Command = []string{"/bin/demo", "sleep"} }
	return t.run("client", nil, append([]func(*v1.Pod){sleep}, change...)...).Name
}

// demo runs the demo program in a pod.
func (t *T) demo(pod string, args ...string) (string, error) {
	return t.kubectl("", append([]string{"exec", pod, "--", "/bin/demo"}, args...)...)
}

// ask sends a request to an address, over HTTP or as a UDP datagram, and returns
// the name of the pod that answered.
func (t *T) ask(from string, proto v1.Protocol, host string, port int32) (string, error) {
	at := net.JoinHostPort(host, strconv.Itoa(int(port)))
	var out string
	var err error
	if proto == v1.ProtocolUDP {
		out, err = t.demo(from, "send", at)
	} else {
		out, err = t.demo(from, "get", "http://"+at+"/")
	}
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(out, "\n")
	name, ok := strings.CutPrefix(line, "Hello from ")
	if !ok {
		return "", fmt.Errorf("answer %q", out)
	}
	return name, nil
}

// reaches waits until each of these pods has answered, and checks that no other
// does.
func (t *T) reaches(from string, proto v1.Protocol, host string, port int32, pods ...string) {
	t.Helper()
	harness.Succeeds(t, fmt.Sprintf("%v at %s port %d", pods, host, port), func() error {
		seen := map[string]bool{}
		for range 30 {
			name, err := t.ask(from, proto, host, port)
			if err != nil {
				return err
			}
			if seen[name] = true; len(seen) == len(pods) {
				break
			}
		}
		for _, p := range pods {
			if !seen[p] {
				return fmt.Errorf("answers of %v, want %v", seen, pods)
			}
		}
		return nil
	})
}

// service makes a Service of the pods app=<app>, with TCP port 80.
func (t *T) service(name, app string, change ...func(*v1.Service)) *v1.Service {
	t.Helper()
	s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceSpec{Selector: labelled(app), Ports: []v1.ServicePort{{Name: "http", Port: 80, Protocol: v1.ProtocolTCP}}}}
	for _, f := range change {
		f(s)
	}
	return got[*v1.Service](t)(t.Client.CoreV1().Services(t.NS).Create(t.Context(), s, create))
}

func labelled(app string) map[string]string { return map[string]string{"app": app} }

// changeService updates a Service, and retries on conflicts.
func (t *T) changeService(name string, f func(*v1.Service)) *v1.Service {
	t.Helper()
	for {
		s := got[*v1.Service](t)(t.Client.CoreV1().Services(t.NS).Get(t.Context(), name, get))
		f(s)
		out, err := t.Client.CoreV1().Services(t.NS).Update(t.Context(), s, update)
		if apierrors.IsConflict(err) {
			continue
		}
		t.must(err)
		return out
	}
}

func nodePort(s *v1.Service) { s.Spec.Type = v1.ServiceTypeNodePort }

func sticky(s *v1.Service) { s.Spec.SessionAffinity = v1.ServiceAffinityClientIP }

var _ = InContainers("[sig-network] Services should serve a basic endpoint from pods", func(t *T) {
	client := t.clientPod()
	s := t.service("basic", "basic")
	t.endpoints("basic")
	t.run("pod1", labelled("basic"))
	t.endpoints("basic", "pod1:80")
	t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, 80, "pod1")
	t.run("pod2", labelled("basic"))
	t.endpoints("basic", "pod1:80", "pod2:80")
	t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, 80, "pod1", "pod2")
	t.deletePod("pod1")
	t.endpoints("basic", "pod2:80")
	t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, 80, "pod2")
	t.deletePod("pod2")
	t.endpoints("basic")
})

// endpoints waits until the Endpoints of a Service are these ports of pods.
func (t *T) endpoints(service string, want ...string) {
	t.Helper()
	harness.Succeeds(t, fmt.Sprintf("endpoints %v", want), func() error {
		e, err := t.Client.CoreV1().Endpoints(t.NS).Get(t.Context(), service, get)
		if err != nil {
			return err
		}
		have := map[string]bool{}
		for _, s := range e.Subsets {
			for _, a := range s.Addresses {
				for _, p := range s.Ports {
					if a.TargetRef != nil {
						have[fmt.Sprintf("%s:%d", a.TargetRef.Name, p.Port)] = true
					}
				}
			}
		}
		for _, w := range want {
			if !have[w] {
				return fmt.Errorf("%v, want %v", have, want)
			}
		}
		if len(have) != len(want) {
			return fmt.Errorf("%v, want %v", have, want)
		}
		return nil
	})
}

var _ = InContainers("[sig-network] Services should serve multiport endpoints from pods", func(t *T) {
	client := t.clientPod()
	s := t.service("multi", "multi", func(s *v1.Service) {
		s.Spec.Ports = []v1.ServicePort{{Name: "portname1", Port: 81, TargetPort: intstrOf("first")}, {Name: "portname2", Port: 82, TargetPort: intstrOf("second")}}
	})
	port := func(name string, n int32) func(*v1.Pod) {
		return func(p *v1.Pod) { p.Spec.Containers[0].Ports = []v1.ContainerPort{{Name: name, ContainerPort: n}} }
	}
	t.run("pod1", labelled("multi"), port("first", 80))
	t.endpoints("multi", "pod1:80")
	t.run("pod2", labelled("multi"), port("second", 8080))
	t.endpoints("multi", "pod1:80", "pod2:8080")
	t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, 81, "pod1")
	t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, 82, "pod2")
	t.deletePod("pod1")
	t.endpoints("multi", "pod2:8080")
	t.deletePod("pod2")
	t.endpoints("multi")
})

var _ = InContainers("[sig-network] Services should serve endpoints on same port and different protocols", func(t *T) {
	client := t.clientPod()
	both := func(s *v1.Service) {
		s.Spec.Ports = []v1.ServicePort{{Name: "tcp-port", Port: 80, Protocol: v1.ProtocolTCP}, {Name: "udp-port", Port: 80, Protocol: v1.ProtocolUDP}}
	}
	s := t.service("both", "both", both)
	t.run("pod1", labelled("both"))
	t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, 80, "pod1")
	t.reaches(client, v1.ProtocolUDP, s.Spec.ClusterIP, 80, "pod1")
	t.changeService("both", func(s *v1.Service) { s.Spec.Ports = s.Spec.Ports[:1] })
	t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, 80, "pod1")
	harness.Eventually(t, "the end of the UDP port", func() bool {
		_, err := t.ask(client, v1.ProtocolUDP, s.Spec.ClusterIP, 80)
		return err != nil
	})
	t.changeService("both", both)
	t.reaches(client, v1.ProtocolUDP, s.Spec.ClusterIP, 80, "pod1")
	t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, 80, "pod1")
})

var _ = InContainers("[sig-network] Services should be able to create a functioning NodePort service", func(t *T) {
	client := t.clientPod()
	s := t.service("nodeport", "nodeport", nodePort)
	t.run("pod1", labelled("nodeport"))
	t.run("pod2", labelled("nodeport"))
	t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, 80, "pod1", "pod2")
	t.reaches(client, v1.ProtocolTCP, "nodeport", 80, "pod1", "pod2")
	for _, n := range t.nodes() {
		t.reaches(client, v1.ProtocolTCP, n.address, s.Spec.Ports[0].NodePort, "pod1", "pod2")
	}
})

// node is a node that pods are scheduled to.
type node struct{ name, address string }

// nodes returns the nodes that pods are scheduled to, one at least.
func (t *T) nodes() (out []node) {
	t.Helper()
	for _, n := range got[*v1.NodeList](t)(t.Client.CoreV1().Nodes().List(t.Context(), all)).Items {
		i := slices.IndexFunc(n.Status.Addresses, func(a v1.NodeAddress) bool { return a.Type == v1.NodeInternalIP })
		if i >= 0 && !n.Spec.Unschedulable && len(n.Spec.Taints) == 0 {
			out = append(out, node{n.Name, n.Status.Addresses[i].Address})
		}
	}
	if len(out) == 0 {
		t.Fatal("there is no node that pods are scheduled to")
	}
	return out
}

// on returns a change that has a pod scheduled to a node.
func on(node string) func(*v1.Pod) {
	name := v1.NodeSelectorTerm{MatchFields: []v1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: v1.NodeSelectorOpIn, Values: []string{node}}}}
	return func(p *v1.Pod) {
		p.Spec.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{name}}}}
	}
}

// typeChange returns a test that changes a Service's type, and checks that the
// Service works with each.
func typeChange(from, to func(*v1.Service)) func(*T) {
	return func(t *T) {
		client := t.clientPod()
		t.service("target", "pods")
		p := t.run("pod1", labelled("pods"))
		t.run("pod2", labelled("pods"))
		name := "target." + t.NS + ".svc.cluster.local"
		works := func(s *v1.Service) {
			if s.Spec.Type == v1.ServiceTypeExternalName {
				harness.Succeeds(t, "the alias", func() error {
					out, err := t.demo(client, "resolve", "cname=changing."+t.NS+".svc.cluster.local")
					if err == nil && strings.TrimSpace(out) != name+"." {
						err = errors.New(out)
					}
					return err
				})
				if s.Spec.ClusterIP != "" {
					t.Errorf("an alias has the cluster address %s", s.Spec.ClusterIP)
				}
				return
			}
			if s.Spec.ClusterIP == "" {
				t.Fatalf("no cluster address: %+v", s.Spec)
			}
			t.reaches(client, v1.ProtocolTCP, "changing", 80, "pod1", "pod2")
			t.reaches(client, v1.ProtocolTCP, s.Spec.ClusterIP, 80, "pod1", "pod2")
			if n := s.Spec.Ports[0].NodePort; n != 0 {
				t.reaches(client, v1.ProtocolTCP, p.Status.HostIP, n, "pod1", "pod2")
			}
		}
		s := t.service("changing", "pods", func(s *v1.Service) {
			if from(s); s.Spec.Type == v1.ServiceTypeExternalName {
				s.Spec.ExternalName = name
			}
		})
		works(s)
		works(t.changeService("changing", func(s *v1.Service) {
			to(s)
			if s.Spec.Type == v1.ServiceTypeExternalName {
				s.Spec.ExternalName, s.Spec.ClusterIP, s.Spec.ClusterIPs = name, "", nil
			} else {
				s.Spec.ExternalName = ""
			}
		}))
	}
}

func clusterIP(s *v1.Service) {
	s.Spec.Type, s.Spec.Selector = v1.ServiceTypeClusterIP, labelled("pods")
	s.Spec.Ports = []v1.ServicePort{{Name: "http", Port: 80, Protocol: v1.ProtocolTCP}}
}

func nodePortOfPods(s *v1.Service) {
	clusterIP(s)
	nodePort(s)
}

func externalName(s *v1.Service) {
	s.Spec.Type, s.Spec.Ports, s.Spec.Selector = v1.ServiceTypeExternalName, nil, nil
}

var (
	_ = InContainers("[sig-network] Services should be able to change the type from ClusterIP to ExternalName", typeChange(clusterIP, externalName))
	_ = InContainers("[sig-network] Services should be able to change the type from NodePort to ExternalName", typeChange(nodePortOfPods, externalName))
	_ = InContainers("[sig-network] Services should be able to change the type from ExternalName to ClusterIP", typeChange(externalName, clusterIP))
	_ = InContainers("[sig-network] Services should be able to change the type from ExternalName to NodePort", typeChange(externalName, nodePortOfPods))
)

// affinity returns a test that a client stays with one pod; with switched, that it
// does so only after the affinity is set.
func affinity(node, switched bool) func(*T) {
	return func(t *T) {
		client := t.clientPod()
		s := t.service("sticky", "sticky", func(s *v1.Service) {
			sticky(s)
			if node {
				nodePort(s)
			}
		})
		names := []string{"pod1", "pod2", "pod3"}
		var p *v1.Pod
		for _, n := range names {
			p = t.run(n, labelled("sticky"))
		}
		host, port := s.Spec.ClusterIP, int32(80)
		if node {
			host, port = p.Status.HostIP, s.Spec.Ports[0].NodePort
		}
		stays := func() {
			t.Helper()
			harness.Succeeds(t, "one pod for one client", func() error {
				first := ""
				for range 15 {
					name, err := t.ask(client, v1.ProtocolTCP, host, port)
					if err != nil {
						return err
					}
					if first == "" {
						first = name
					}
					if name != first {
						return fmt.Errorf("%s, then %s", first, name)
					}
				}
				return nil
			})
		}
		stays()
		if !switched {
			return
		}
		t.changeService("sticky", func(s *v1.Service) {
			s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = v1.ServiceAffinityNone, nil
		})
		t.reaches(client, v1.ProtocolTCP, host, port, names...)
		t.changeService("sticky", sticky)
		stays()
	}
}

var (
	_ = InContainers("[sig-network] Services should have session affinity work for service with type clusterIP", affinity(false, false))
	_ = InContainers("[sig-network] Services should have session affinity work for NodePort service", affinity(true, false))
	_ = InContainers("[sig-network] Services should be able to switch session affinity for service with type clusterIP", affinity(false, true))
	_ = InContainers("[sig-network] Services should be able to switch session affinity for NodePort service", affinity(true, true))
)

var _ = It("[sig-network] Services should find a service from listing all namespaces", func(t *T) {
	list := got[*v1.ServiceList](t)(t.Client.CoreV1().Services("").List(t.Context(), all))
	for _, s := range list.Items {
		if s.Namespace == "default" && s.Name == "kubernetes" {
			return
		}
	}
	t.Error("the kubernetes Service is not in the list")
})

var _ = It("[sig-network] Services should delete a collection of services", func(t *T) {
	for _, n := range []string{"a", "b", "c"} {
		t.service(n, "x", func(s *v1.Service) { s.Labels = map[string]string{"collected": fmt.Sprint(n != "c")} })
	}
	services := t.Client.CoreV1().Services(t.NS)
	t.must(t.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "services"}).Namespace(t.NS).DeleteCollection(t.Context(), remove, metav1.ListOptions{LabelSelector: "collected=true"}))
	list := got[*v1.ServiceList](t)(services.List(t.Context(), all))
	if len(list.Items) != 1 || list.Items[0].Name != "c" {
		t.Errorf("left: %v", list.Items)
	}
})

var _ = It("[sig-network] Services should complete a service status lifecycle", func(t *T) {
	services := t.Client.CoreV1().Services(t.NS)
	w := got[watch.Interface](t)(services.Watch(t.Context(), metav1.ListOptions{LabelSelector: "life=cycle"}))
	defer w.Stop()
	t.service("life", "x", func(s *v1.Service) {
		// The load balancer class is unknown, so that the status is left to the test.
		s.Labels, s.Spec.Type, s.Spec.LoadBalancerClass = map[string]string{"life": "cycle"}, v1.ServiceTypeLoadBalancer, ptr.To("example.com/internal-vip")
	})
	t.event(w, watch.Added, nil)
	ingress := func(ip string) func(runtime.Object) bool {
		return func(o runtime.Object) bool {
			in := o.(*v1.Service).Status.LoadBalancer.Ingress
			return len(in) == 1 && in[0].IP == ip
		}
	}
	body := patchOf(dict{"metadata": dict{"annotations": dict{"patchedstatus": "true"}}, "status": dict{"loadBalancer": dict{"ingress": []dict{{"ip": "203.0.113.1"}}}}})
	s := got[*v1.Service](t)(services.Patch(t.Context(), "life", types.MergePatchType, body, metav1.PatchOptions{}, "status"))
	t.event(w, watch.Modified, ingress("203.0.113.1"))
	if s.Annotations["patchedstatus"] != "true" {
		t.Errorf("annotations after the patch of the status: %v", s.Annotations)
	}
	s.Status.Conditions = append(s.Status.Conditions, metav1.Condition{Type: "StatusUpdate", Status: metav1.ConditionTrue, Reason: "E2E", Message: "Set from e2e test", LastTransitionTime: metav1.Now()})
	s = got[*v1.Service](t)(services.UpdateStatus(t.Context(), s, update))
	t.event(w, watch.Modified, func(o runtime.Object) bool { return len(o.(*v1.Service).Status.Conditions) == 1 })
	u := got[dict](t)(t.statusOf("services", "life"))
	if fmt.Sprint(u["conditions"]) == "<nil>" {
		t.Errorf("status: %v", u)
	}
	s = got[*v1.Service](t)(services.Patch(t.Context(), s.Name, types.StrategicMergePatchType, patchOf(dict{"metadata": dict{"labels": dict{"test-service": "patched"}}}), metav1.PatchOptions{}))
	if s.Labels["test-service"] != "patched" {
		t.Errorf("labels: %v", s.Labels)
	}
	t.event(w, watch.Modified, func(o runtime.Object) bool { return o.(*v1.Service).Labels["test-service"] == "patched" })
	t.must(services.Delete(t.Context(), "life", remove))
	t.event(w, watch.Deleted, nil)
})

// statusOf reads the status subresource of an object of the core group.
func (t *T) statusOf(resource, name string) (dict, error) {
	u, err := t.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: resource}).Namespace(t.NS).Get(t.Context(), name, get, "status")
	if err != nil {
		return nil, err
	}
	status, _ := u.Object["status"].(dict)
	return status, nil
}

// granular returns a test that sends requests to pods of each node from a pod that is,
// or is not, on its node's network.
func granular(proto v1.Protocol, host bool) func(*T) {
	return func(t *T) {
		client := t.clientPod(func(p *v1.Pod) { p.Spec.HostNetwork = host })
		for i, n := range t.nodes() {
			for j := range 2 {
				name := fmt.Sprintf("pod%d-%d", i, j)
				p := t.run(name, labelled("net"), on(n.name))
				for _, port := range []int32{80, 8080} {
					t.reaches(client, proto, p.Status.PodIP, port, name)
				}
			}
		}
	}
}

var (
	_ = InContainers("[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http", granular(v1.ProtocolTCP, false))
	_ = InContainers("[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: udp", granular(v1.ProtocolUDP, false))
	_ = InContainers("[sig-network] Networking Granular Checks: Pods should function for node-pod communication: http", granular(v1.ProtocolTCP, true))
	_ = InContainers("[sig-network] Networking Granular Checks: Pods should function for node-pod communication: udp", granular(v1.ProtocolUDP, true))
)

var _ = InContainers("[sig-network] Proxy version v1 should proxy through a service and a pod", func(t *T) {
	t.service("proxied", "proxied", func(s *v1.Service) {
		s.Spec.Ports = []v1.ServicePort{{Name: "portname1", Port: 80, TargetPort: intstrOf("dest1")}, {Name: "portname2", Port: 81, TargetPort: intstrOf("8080")}}
	})
	t.run("pod1", labelled("proxied"), func(p *v1.Pod) {
		p.Spec.Containers[0].Ports = []v1.ContainerPort{{Name: "dest1", ContainerPort: 80}, {Name: "dest2", ContainerPort: 8080}}
	})
	t.endpoints("proxied", "pod1:80", "pod1:8080")
	for _, path := range []string{"services/proxied:portname1", "services/proxied:80", "services/proxied:portname2", "services/proxied:81", "services/http:proxied:portname1",
		"pods/pod1", "pods/pod1:80", "pods/pod1:8080", "pods/http:pod1:80"} {
		harness.Succeeds(t, path, func() error {
			b, _, code := t.raw("/api/v1/namespaces/"+t.NS+"/"+path+"/proxy/some/path", "")
			if code != 200 || string(b) != "Hello from pod1\nGET /some/path\n" {
				return fmt.Errorf("%d %s", code, b)
			}
			return nil
		})
	}
})

// methods returns a test that sends requests of every method to a pod and a
// Service through the API server.
func methods(path string) func(*T) {
	return func(t *T) {
		t.service("proxied", "proxied")
		t.run("agnhost", labelled("proxied"))
		t.endpoints("proxied", "agnhost:80")
		rest := t.Client.CoreV1().RESTClient()
		for _, kind := range []string{"pods/agnhost", "services/proxied"} {
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"} {
				harness.Succeeds(t, method+" "+kind, func() error {
					res := rest.Verb(method).AbsPath("/api/v1/namespaces/" + t.NS + "/" + kind + "/proxy" + path).Do(t.Context())
					code := 0
					res.StatusCode(&code)
					b, err := res.Raw()
					if err != nil || code != 200 || method != "HEAD" && !strings.Contains(string(b), method+" ") {
						return fmt.Errorf("%d %q %w", code, b, err)
					}
					return nil
				})
			}
		}
	}
}

var (
	_ = InContainers("[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service Proxy", methods(""))
	_ = InContainers("[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath", methods("/some/path"))
)

var _ = InContainers("[sig-network] Service endpoints latency should not be very high", func(t *T) {
	t.run("pod1", labelled("latency"))
	w := got[watch.Interface](t)(t.Client.DiscoveryV1().EndpointSlices(t.NS).Watch(t.Context(), all))
	defer w.Stop()
	for i := range 50 {
		name := fmt.Sprintf("latency-%d", i)
		t.service(name, "latency")
		// The bound is that of every wait: make bench measures the time.
		t.event(w, watch.Added, func(o runtime.Object) bool {
			b, err := json.Marshal(o)
			return err == nil && strings.Contains(string(b), `"kubernetes.io/service-name":"`+name+`"`)
		})
	}
})

var _ = InContainers("[sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol", func(t *T) {
	client := t.clientPod(func(p *v1.Pod) { p.Spec.HostNetwork = true })
	p := got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Get(t.Context(), client, get))
	node := p.Status.HostIP
	hostPort := func(ip string, proto v1.Protocol) func(*v1.Pod) {
		return func(pod *v1.Pod) {
			on(p.Spec.NodeName)(pod)
			pod.Spec.Containers[0].Ports = []v1.ContainerPort{{ContainerPort: 8080, HostPort: 54323, HostIP: ip, Protocol: proto}}
		}
	}
	t.run("pod1", nil, hostPort("127.0.0.1", v1.ProtocolTCP))
	t.run("pod2", nil, hostPort(node, v1.ProtocolTCP))
	t.run("pod3", nil, hostPort(node, v1.ProtocolUDP))
	t.reaches(client, v1.ProtocolTCP, "127.0.0.1", 54323, "pod1")
	t.reaches(client, v1.ProtocolTCP, node, 54323, "pod2")
	t.reaches(client, v1.ProtocolUDP, node, 54323, "pod3")
})
