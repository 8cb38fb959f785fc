package cloud

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/controllers/nodeipam"
	"keelson.dev/keelson/internal/network/lb"
	"keelson.dev/keelson/test/harness"
)

const (
	uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"
	shutdown      = "node.cloudprovider.kubernetes.io/shutdown"
	finalizer     = "service.kubernetes.io/load-balancer-cleanup"
	podRange      = "10.213.0.0/16"
)

// site is a cluster whose nodes are machines of a cloud.
type site struct {
	*testing.T
	client *kubernetes.Clientset
	cloud  *Cloud
}

func (s *site) node(name string) *v1.Node {
	s.Helper()
	n, err := s.client.CoreV1().Nodes().Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return n
}

func tainted(n *v1.Node, key string) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == key })
}

// TestCloud has an external cloud controller manager do all that is a cloud's for
// nodes that are simulated.
func TestCloud(t *testing.T) {
	c, err := cluster.Start(context.WithoutCancel(t.Context()), cluster.Options{Options: controlplane.Options{Listen: "127.0.0.1:0"}, SimNodes: 2, ExternalCloud: true,
		NodeIPAM: nodeipam.Selection{ClusterCIDRs: []string{podRange}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t, kubernetes.NewForConfigOrDie(cfg), NewCloud(t)}
	s.waits()
	s.cloud.Add("sim-0", machine("i-0", "192.0.2.10", "198.51.100.10"))
	s.cloud.Add("sim-1", machine("i-1", "192.0.2.11", "198.51.100.11"))
	manage(t, s.cloud, cfg, podRange)
	s.initialized()
	s.routes()
	s.balanced()
	s.classes()
	s.lifecycle()
}

// waits looks at the nodes before the cloud has come, and has a pod wait.
func (s *site) waits() {
	for _, name := range []string{"sim-0", "sim-1"} {
		n := s.node(name)
		if !tainted(n, uninitialized) || n.Spec.ProviderID != "" {
			s.Errorf("%s has the provider ID %q and the taints %v before the cloud has come", name, n.Spec.ProviderID, n.Spec.Taints)
		}
		if want := []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}}; !slices.Equal(n.Status.Addresses, want) {
			s.Errorf("%s has the addresses %v before the cloud has come, want %v", name, n.Status.Addresses, want)
		}
	}
	if _, err := s.client.CoreV1().Pods("default").Create(s.Context(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "waits"},
		Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "none"}}}}, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	harness.Succeeds(s, "the pod to find no node", func() error {
		p, err := s.client.CoreV1().Pods("default").Get(s.Context(), "waits", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range p.Status.Conditions {
			if c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse && strings.Contains(c.Message, "untolerated taint(s)") {
				return nil
			}
		}
		return fmt.Errorf("%v", p.Status.Conditions)
	})
}

// initialized waits for what the cloud gives to a Node.
func (s *site) initialized() {
	for i, name := range []string{"sim-0", "sim-1"} {
		want := []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: fmt.Sprintf("192.0.2.1%d", i)}, {Type: v1.NodeExternalIP, Address: fmt.Sprintf("198.51.100.1%d", i)}, {Type: v1.NodeHostName, Address: name}}
		harness.Succeeds(s, "initialization of "+name, func() error {
			n := s.node(name)
			labels := map[string]string{v1.LabelInstanceTypeStable: "large", v1.LabelTopologyZone: "west-1", v1.LabelTopologyRegion: "west"}
			for k, v := range labels {
				labels[k] = n.Labels[k]
				if n.Labels[k] != v {
					return fmt.Errorf("the labels %v", n.Labels)
				}
			}
			switch id := fmt.Sprintf("%s://i-%d", providerName, i); {
			case n.Spec.ProviderID != id:
				return fmt.Errorf("the provider ID %q, want %q", n.Spec.ProviderID, id)
			case tainted(n, uninitialized):
				return fmt.Errorf("the taints %v", n.Spec.Taints)
			case !slices.Equal(n.Status.Addresses, want):
				return fmt.Errorf("the addresses %v, want %v", n.Status.Addresses, want)
			}
			return nil
		})
	}
	harness.Succeeds(s, "the pod that waited to run", func() error {
		p, err := s.client.CoreV1().Pods("default").Get(s.Context(), "waits", metav1.GetOptions{})
		if err == nil && p.Status.Phase != v1.PodRunning {
			err = fmt.Errorf("it is %s: %v", p.Status.Phase, p.Status.Conditions)
		}
		return err
	})
	// The cloud moves a machine.
	s.cloud.Add("sim-1", machine("i-1", "192.0.2.12", "198.51.100.12"))
	harness.Succeeds(s, "the machine's new address", func() error {
		if all := s.node("sim-1").Status.Addresses; all[0].Address != "192.0.2.12" {
			return fmt.Errorf("%v", all)
		}
		return nil
	})
}

// routes waits for the routes to the nodes' pods.
func (s *site) routes() {
	harness.Succeeds(s, "routes", func() error {
		want := map[string]string{}
		for _, name := range []string{"sim-0", "sim-1"} {
			n := s.node(name)
			want[n.Spec.PodCIDR] = name
			i := slices.IndexFunc(n.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeNetworkUnavailable })
			if i < 0 || n.Status.Conditions[i].Status != v1.ConditionFalse || n.Status.Conditions[i].Reason != "RouteCreated" {
				return fmt.Errorf("%s has the conditions %v", name, n.Status.Conditions)
			}
		}
		if got := s.cloud.RoutesTo(); !maps.Equal(got, want) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
}

func (s *site) service(name string, change func(*v1.Service)) *v1.Service {
	s.Helper()
	svc := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, Ports: []v1.ServicePort{{Port: 80}}}}
	change(svc)
	svc, err := s.client.CoreV1().Services("default").Create(s.Context(), svc, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return svc
}

func (s *site) update(name string, change func(*v1.Service)) {
	s.Helper()
	services := s.client.CoreV1().Services("default")
	if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		svc, err := services.Get(s.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(svc)
		_, err = services.Update(s.Context(), svc, metav1.UpdateOptions{})
		return err
	}); err != nil {
		s.Fatal(err)
	}
}

// has waits until a Service has this address, which is empty for none, and the
// finalizer or not.
func (s *site) has(name, address string, held bool) {
	s.Helper()
	harness.Succeeds(s, fmt.Sprintf("the address %q of %s", address, name), func() error {
		svc, err := s.client.CoreV1().Services("default").Get(s.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		got := ""
		for _, i := range svc.Status.LoadBalancer.Ingress {
			got += i.IP
		}
		if got != address || slices.Contains(svc.Finalizers, finalizer) != held {
			return fmt.Errorf("it has %q and the finalizers %v", got, svc.Finalizers)
		}
		return nil
	})
}

// balancer waits until that of a Service is as wanted.
func (s *site) balancer(name string, want Balancer) {
	s.Helper()
	want.Service = "default/" + name
	harness.Succeeds(s, "the load balancer of "+name, func() error {
		got, ok := s.cloud.BalancerOf(want.Service)
		slices.Sort(got.Hosts)
		if !ok || fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("%+v, want %+v", got, want)
		}
		return nil
	})
}

func (s *site) noBalancer(name string) {
	s.Helper()
	harness.Succeeds(s, "no load balancer of "+name, func() error {
		if b, ok := s.cloud.BalancerOf("default/" + name); ok {
			return fmt.Errorf("there is %v", b)
		}
		return nil
	})
}

// balanced follows a load balancer from its Service's creation to its deletion.
func (s *site) balanced() {
	both := []string{providerName + "://i-0", providerName + "://i-1"}
	s.service("web", func(svc *v1.Service) { svc.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"} })
	s.has("web", "203.0.113.1", true)
	s.balancer("web", Balancer{Address: "203.0.113.1", Ports: []int32{80}, Ranges: []string{"192.0.2.0/24"}, Hosts: both})
	s.update("web", func(svc *v1.Service) { svc.Spec.Ports[0].Port, svc.Spec.LoadBalancerSourceRanges = 81, nil })
	s.balancer("web", Balancer{Address: "203.0.113.1", Ports: []int32{81}, Hosts: both})
	label := func(patch string) {
		s.Helper()
		if _, err := s.client.CoreV1().Nodes().Patch(s.Context(), "sim-1", "application/merge-patch+json", []byte(patch), metav1.PatchOptions{}); err != nil {
			s.Fatal(err)
		}
	}
	label(`{"metadata":{"labels":{"` + v1.LabelNodeExcludeBalancers + `":""}}}`)
	s.balancer("web", Balancer{Address: "203.0.113.1", Ports: []int32{81}, Hosts: both[:1]})
	label(`{"metadata":{"labels":{"` + v1.LabelNodeExcludeBalancers + `":null}}}`)
	s.balancer("web", Balancer{Address: "203.0.113.1", Ports: []int32{81}, Hosts: both})
	s.update("web", func(svc *v1.Service) { svc.Spec.Type = v1.ServiceTypeClusterIP })
	s.noBalancer("web")
	s.has("web", "", false)
	s.update("web", func(svc *v1.Service) { svc.Spec.Type = v1.ServiceTypeLoadBalancer })
	s.has("web", "203.0.113.2", true)
	if err := s.client.CoreV1().Services("default").Delete(s.Context(), "web", metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
	s.noBalancer("web")
	harness.Succeeds(s, "the Service to go", func() error {
		_, err := s.client.CoreV1().Services("default").Get(s.Context(), "web", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is there"))
	})
	harness.Succeeds(s, "the events of the load balancer", func() error {
		all, err := s.client.CoreV1().Events("default").List(s.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=web"})
		if err != nil {
			return err
		}
		missing := map[string]bool{"EnsuredLoadBalancer": true, "UpdatedLoadBalancer": true, "DeletedLoadBalancer": true}
		for i := range all.Items {
			delete(missing, all.Items[i].Reason)
		}
		if len(missing) > 0 {
			return fmt.Errorf("there are none of %v", missing)
		}
		return nil
	})
}

// classes has Services with a class get nothing of the cloud.
func (s *site) classes() {
	class := func(c string) func(*v1.Service) {
		return func(svc *v1.Service) { svc.Spec.LoadBalancerClass = &c }
	}
	s.service("foreign", class("example.com/other"))
	s.service("own", class(lb.ClassNodes))
	s.service("clouds", func(*v1.Service) {})
	s.has("own", "198.51.100.10198.51.100.12", true)
	s.has("clouds", "203.0.113.3", true)
	s.has("foreign", "", false)
	s.noBalancer("own")
	s.noBalancer("foreign")
	// With its type a Service loses its class; what it had is free for another.
	s.update("own", func(svc *v1.Service) { svc.Spec.Type, svc.Spec.LoadBalancerClass = v1.ServiceTypeClusterIP, nil })
	s.has("own", "", false)
	s.service("next", class(lb.ClassNodes))
	s.has("next", "198.51.100.10198.51.100.12", true)
}

// lifecycle stops a machine whose kubelet has fallen silent, and then takes it away.
func (s *site) lifecycle() {
	s.cloud.Add("lost", machine("i-2", "192.0.2.20", "198.51.100.20"))
	if _, err := s.client.CoreV1().Nodes().Create(s.Context(), &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "lost"},
		Spec:   v1.NodeSpec{Taints: []v1.Taint{{Key: uninitialized, Value: "true", Effect: v1.TaintEffectNoSchedule}}},
		Status: v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionUnknown}}}}, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	harness.Succeeds(s, "initialization and a route", func() error {
		n := s.node("lost")
		if tainted(n, uninitialized) || n.Spec.PodCIDR == "" || s.cloud.RoutesTo()[n.Spec.PodCIDR] != "lost" {
			return fmt.Errorf("%v, routes %v", n.Spec, s.cloud.RoutesTo())
		}
		return nil
	})
	stopped := machine("i-2", "192.0.2.20", "198.51.100.20")
	stopped.Stopped = true
	s.cloud.Add("lost", stopped)
	harness.Succeeds(s, "the taint of a machine that is shut down", func() error {
		if n := s.node("lost"); !tainted(n, shutdown) {
			return fmt.Errorf("%v", n.Spec.Taints)
		}
		return nil
	})
	s.cloud.Remove("lost")
	harness.Succeeds(s, "the Node to go with its machine", func() error {
		_, err := s.client.CoreV1().Nodes().Get(s.Context(), "lost", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is there"))
	})
	harness.Succeeds(s, "the route to go with the Node", func() error {
		if all := s.cloud.RoutesTo(); len(all) != 2 {
			return fmt.Errorf("%v", all)
		}
		return nil
	})
	if n := s.node("sim-0"); ptr.Deref(n.DeletionTimestamp, metav1.Time{}) != (metav1.Time{}) {
		s.Error("the Node of a machine that runs is deleted")
	}
}
