package service

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/network/lb"
	"keelson.dev/keelson/internal/network/reserved"
)

// cluster runs the controller with two nodes.
type cluster struct {
	*testing.T
	*controllertest.Cluster
}

func start(t *testing.T, o lb.Options) *cluster {
	c := &cluster{t, controllertest.NewWith(t, func(c *controllers.Context) { c.LoadBalancer = &o }, New)}
	c.node("a", "192.0.2.1", true)
	c.node("b", "192.0.2.2", true)
	return c
}

func (c *cluster) node(name, ip string, ready bool, change ...func(*v1.Node)) {
	c.Helper()
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: ip}},
		Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: map[bool]v1.ConditionStatus{true: v1.ConditionTrue, false: v1.ConditionUnknown}[ready]}}}}
	for _, f := range change {
		f(n)
	}
	nodes := c.Client.CoreV1().Nodes()
	_, err := nodes.Get(c.T.Context(), name, metav1.GetOptions{})
	if err != nil {
		_, err = nodes.Create(c.T.Context(), n, metav1.CreateOptions{})
	} else {
		_, err = nodes.Update(c.T.Context(), n, metav1.UpdateOptions{})
	}
	if err != nil {
		c.Fatal(err)
	}
	synctest.Wait()
}

func (c *cluster) create(name string, port int32, change ...func(*v1.Service)) {
	c.Helper()
	s := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)},
		Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, Ports: []v1.ServicePort{{Port: port, Protocol: v1.ProtocolTCP}}}}
	for _, f := range change {
		f(s)
	}
	if _, err := c.Client.CoreV1().Services("ns").Create(c.T.Context(), s, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
	synctest.Wait()
}

func (c *cluster) get(name string) *v1.Service {
	c.Helper()
	s, err := c.Client.CoreV1().Services("ns").Get(c.T.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	return s
}

func (c *cluster) update(name string, change func(*v1.Service)) {
	c.Helper()
	s := c.get(name)
	change(s)
	if _, err := c.Client.CoreV1().Services("ns").Update(c.T.Context(), s, metav1.UpdateOptions{}); err != nil {
		c.Fatal(err)
	}
	synctest.Wait()
}

// has compares the addresses that the Service has.
func (c *cluster) has(name, want string) {
	c.Helper()
	var got []string
	for _, in := range c.get(name).Status.LoadBalancer.Ingress {
		got = append(got, in.IP)
		if in.IPMode == nil || *in.IPMode != v1.LoadBalancerIPModeVIP {
			c.Errorf("%s: the mode of %s is not VIP", name, in.IP)
		}
	}
	if s := strings.Join(got, " "); s != want {
		c.Errorf("%s has %q, want %q", name, s, want)
	}
}

func (c *cluster) told(want ...string) {
	c.Helper()
	if got := c.Events(); !slices.Equal(got, want) {
		c.Errorf("events %q, want %q", got, want)
	}
}

const (
	ensuring  = "Normal EnsuringLoadBalancer Ensuring load balancer"
	ensuredIt = "Normal EnsuredLoadBalancer Ensured load balancer"
	deleting  = "Normal DeletingLoadBalancer Deleting load balancer"
	deleted   = "Normal DeletedLoadBalancer Deleted load balancer"
	updated   = "Normal UpdatedLoadBalancer Updated load balancer with new hosts"
)

func TestNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, lb.Options{})
		c.create("one", 80)
		c.has("one", "192.0.2.1 192.0.2.2")
		if !meta.IsStatusConditionTrue(c.get("one").Status.Conditions, reserved.OfNodes) {
			t.Errorf("the load balancer is not known to be the nodes: %+v", c.get("one").Status)
		}
		if f := c.get("one").Finalizers; !slices.Equal(f, []string{finalizer}) {
			t.Errorf("finalizers %q", f)
		}
		c.told(ensuring, ensuredIt)

		// Another one with its port waits until it is given back.
		c.create("two", 80)
		c.has("two", "")
		taken := "Warning SyncLoadBalancerFailed Error syncing load balancer: failed to ensure load balancer: port 80/TCP of the nodes is that of the Service ns/one: choose another port, or delete that Service"
		if e := c.Events(); !slices.Contains(e, taken) {
			t.Errorf("events %q", e)
		}
		c.update("one", func(s *v1.Service) { s.Spec.Ports[0].Port = 81 })
		c.has("one", "192.0.2.1 192.0.2.2")
		c.has("two", "192.0.2.1 192.0.2.2")
		c.Events()

		// Nodes come, are excluded, and fail.
		c.node("c", "192.0.2.3", true)
		c.has("one", "192.0.2.1 192.0.2.2 192.0.2.3")
		c.told(updated, updated)
		c.node("b", "192.0.2.2", true, func(n *v1.Node) { n.Labels = map[string]string{v1.LabelNodeExcludeBalancers: ""} })
		c.has("one", "192.0.2.1 192.0.2.3")
		c.node("c", "192.0.2.3", false)
		c.has("one", "192.0.2.1")
		c.node("c", "192.0.2.3", true, func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: toBeDeleted}} })
		c.has("one", "192.0.2.1")
		c.Events()

		// The next process goes on.
		c.Restart()
		c.Events()
		c.create("three", 80)
		c.has("three", "")
		c.Events()

		c.update("two", func(s *v1.Service) { s.Spec.Type = v1.ServiceTypeClusterIP })
		c.has("two", "")
		if f := c.get("two").Finalizers; len(f) > 0 {
			t.Errorf("finalizers %q", f)
		}
		c.has("three", "192.0.2.1")
		c.told(deleting, deleted, ensuring, ensuredIt)

		if err := c.Client.CoreV1().Services("ns").Delete(t.Context(), "three", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.told(deleting, deleted)
		if _, err := c.Client.CoreV1().Services("ns").Get(t.Context(), "three", metav1.GetOptions{}); err == nil {
			t.Error("the Service is still there")
		}
	})
}

func TestNoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t, controllertest.NewWith(t, func(c *controllers.Context) { c.LoadBalancer = &lb.Options{} }, New)}
		c.create("one", 80)
		c.told(ensuring, "Warning UnAvailableLoadBalancer There are no available nodes for LoadBalancer", ensuredIt)
		c.node("a", "192.0.2.1", true)
		c.has("one", "192.0.2.1")
		c.told(updated)
	})
}

func TestClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := lb.ParseRange("198.51.100.1-198.51.100.2")
		if err != nil {
			t.Fatal(err)
		}
		c := start(t, lb.Options{Addresses: []lb.Range{r}})
		class := func(name string) func(*v1.Service) {
			return func(s *v1.Service) { s.Spec.LoadBalancerClass = ptr.To(name) }
		}
		c.create("pool", 80)
		c.create("named", 80, class(lb.ClassPool))
		c.create("nodes", 80, class(lb.ClassNodes))
		c.has("pool", "198.51.100.1")
		c.has("named", "198.51.100.2")
		c.has("nodes", "192.0.2.1 192.0.2.2")
		c.Events()
		c.create("foreign", 80, class("example.com/other"), func(s *v1.Service) { s.Finalizers = []string{finalizer} })
		c.has("foreign", "")
		if err := c.Client.CoreV1().Services("ns").Delete(t.Context(), "foreign", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if f := c.get("foreign").Finalizers; len(f) != 1 {
			t.Errorf("the finalizer of another's is taken away: %q", f)
		}
		c.told()

		// The node that answers changes when it fails, the address stays.
		by := c.get("pool").Annotations[lb.AnnouncedBy]
		other := map[string]string{"a": "b", "b": "a"}[by]
		ip := map[string]string{"a": "192.0.2.1", "b": "192.0.2.2"}
		c.node(by, ip[by], false)
		c.has("pool", "198.51.100.1")
		if now := c.get("pool").Annotations[lb.AnnouncedBy]; now != other || other == "" {
			t.Errorf("answered for by %q, then by %q", by, now)
		}
		// What others write over it comes back.
		c.update("pool", func(s *v1.Service) {
			s.Annotations[lb.AnnouncedBy], s.Status.LoadBalancer = "nobody", v1.LoadBalancerStatus{}
		})
		c.has("pool", "198.51.100.1")
		if now := c.get("pool").Annotations[lb.AnnouncedBy]; now != other {
			t.Errorf("after another's write: %q", now)
		}
	})
}

// TestOnlyClasses leaves Services without a class to a cloud, those included that had
// one: the cloud's controller manager uses the same finalizer.
func TestOnlyClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, lb.Options{Mode: lb.Classes})
		c.create("cloud", 80, func(s *v1.Service) { s.Finalizers = []string{finalizer} })
		c.has("cloud", "")
		c.told()
		c.create("own", 80, func(s *v1.Service) { s.Spec.LoadBalancerClass = ptr.To(lb.ClassNodes) })
		c.has("own", "192.0.2.1 192.0.2.2")
		c.Events()
		for _, name := range []string{"cloud", "own"} {
			c.update(name, func(s *v1.Service) { s.Spec.Type, s.Spec.LoadBalancerClass = v1.ServiceTypeClusterIP, nil })
		}
		c.told(deleting, deleted)
		c.has("own", "")
		if f := c.get("own").Finalizers; len(f) > 0 {
			t.Errorf("finalizers %q", f)
		}
		if f := c.get("cloud").Finalizers; len(f) != 1 {
			t.Errorf("the cloud's finalizer is taken away: %q", f)
		}
		c.create("next", 80, func(s *v1.Service) { s.Spec.LoadBalancerClass = ptr.To(lb.ClassNodes) })
		c.has("next", "192.0.2.1 192.0.2.2")
	})
}

// TestRestarts checks that a later process keeps the load balancers that there
// are.
func TestRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, lb.Options{})
		c.create("one", 80)
		for range 3 {
			c.Restart()
		}
		c.has("one", "192.0.2.1 192.0.2.2")
		if f := c.get("one").Finalizers; !slices.Equal(f, []string{finalizer}) {
			t.Errorf("finalizers %q", f)
		}
	})
}
