package cloud

import (
	"fmt"
	"maps"
	"net"
	"net/rpc"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"
)

// Instance is a machine of the cloud.
type Instance struct {
	cloudprovider.InstanceMetadata
	Stopped bool
}

// Balancer is a load balancer of the cloud.
type Balancer struct {
	Service string // namespace/name
	Address string
	Ports   []int32
	Ranges  []string
	Hosts   []string
}

// Cloud is the state of a cloud, which serves it to controller managers on a socket.
// Its exported methods with two arguments are those of net/rpc.
type Cloud struct {
	socket string

	mu        sync.Mutex
	instances map[string]Instance // by the name of the node
	routes    map[string]cloudprovider.Route
	balancers map[string]Balancer
	given     int // addresses of balancers
}

// NewCloud starts an empty cloud, which ends with the test.
func NewCloud(t testing.TB) *Cloud {
	t.Helper()
	c := &Cloud{socket: filepath.Join(t.TempDir(), "cloud"), instances: map[string]Instance{}, routes: map[string]cloudprovider.Route{}, balancers: map[string]Balancer{}}
	s := rpc.NewServer()
	if err := s.RegisterName("Cloud", &service{c}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", c.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go s.Accept(l)
	return c
}

// Add adds an instance, or changes one.
func (c *Cloud) Add(node string, i Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instances[node] = i
}

// Remove takes an instance away.
func (c *Cloud) Remove(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.instances, node)
}

// RoutesTo returns where the routes lead, by what they are for.
func (c *Cloud) RoutesTo() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]string{}
	for _, r := range c.routes {
		out[r.DestinationCIDR] = string(r.TargetNode)
	}
	return out
}

// BalancerOf returns the load balancer of a Service, and whether there is one.
func (c *Cloud) BalancerOf(service string) (Balancer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.balancers {
		if b.Service == service {
			return b, true
		}
	}
	return Balancer{}, false
}

// service is what the cloud offers to controller managers.
type service struct{ *Cloud }

// None is the argument or the answer of a call without one.
type None struct{}

// Instance gives that of a node, or of a provider ID; it has no provider ID where
// there is none.
func (s *service) Instance(asked [2]string, out *Instance) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	node, id := asked[0], asked[1]
	for name, i := range s.instances {
		if id != "" && i.ProviderID == id || id == "" && name == node {
			*out = i
		}
	}
	return nil
}

// Routes gives all routes.
func (s *service) Routes(_ None, out *[]cloudprovider.Route) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	*out = slices.Collect(maps.Values(s.routes))
	return nil
}

// CreateRoute adds a route.
func (s *service) CreateRoute(r cloudprovider.Route, _ *None) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Name = fmt.Sprintf("%s-%s", r.TargetNode, r.DestinationCIDR)
	s.routes[r.Name] = r
	return nil
}

// DeleteRoute takes a route away.
func (s *service) DeleteRoute(name string, _ *None) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.routes[name]; !ok {
		return fmt.Errorf("there is no route %q", name)
	}
	delete(s.routes, name)
	return nil
}

// Balancer gives a load balancer; it has no address where there is none.
func (s *service) Balancer(name string, out *Balancer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	*out = s.balancers[name]
	return nil
}

// Named is a load balancer with its name.
type Named struct {
	Name string
	Balancer
}

// EnsureBalancer makes a load balancer, or changes it, and gives it with its address.
func (s *service) EnsureBalancer(b Named, out *Balancer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.Address = s.balancers[b.Name].Address; b.Address == "" {
		s.given++
		b.Address = fmt.Sprintf("203.0.113.%d", s.given)
	}
	s.balancers[b.Name] = b.Balancer
	*out = b.Balancer
	return nil
}

// DeleteBalancer takes a load balancer away, if it is there.
func (s *service) DeleteBalancer(name string, _ *None) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.balancers, name)
	return nil
}

// machine is an instance with an address of each kind.
func machine(id, internal, external string) Instance {
	return Instance{InstanceMetadata: cloudprovider.InstanceMetadata{ProviderID: providerName + "://" + id, InstanceType: "large", Zone: "west-1", Region: "west",
		NodeAddresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: internal}, {Type: v1.NodeExternalIP, Address: external}}}}
}
