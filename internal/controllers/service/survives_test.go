package service

import (
	"fmt"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/network/lb"
)

// TestSurvives checks that no two Services ever have the same address and port, and that in
// the end each has its load balancer, and those that want none have none left.
func TestSurvives(t *testing.T) {
	node := func(name, ip string) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: ip}},
			Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}}}
	}
	svc := func(name string, port int32) *v1.Service {
		return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
			Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, IPFamilies: []v1.IPFamily{v1.IPv4Protocol}, Ports: []v1.ServicePort{{Port: port, Protocol: v1.ProtocolTCP}}}}
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		Context: func(c *controllers.Context) { c.LoadBalancer = &lb.Options{} },
		World:   []controllertest.Object{node("a", "192.0.2.1"), svc("one", 80), svc("two", 81)},
		Actions: []controllertest.Action{
			controllertest.Creates(svc("also", 80), node("b", "192.0.2.2")),
			controllertest.Edits("ns", "two", func(s *v1.Service) { s.Spec.Type = v1.ServiceTypeClusterIP }),
			controllertest.Removes[*v1.Service]("ns", "one"),
			controllertest.Removes[*v1.Node]("", "a"),
		},
		Always: func(t *testing.T, c *controllertest.Cluster) {
			has := map[string]string{}
			for _, s := range controllertest.All[*v1.Service](c, "ns") {
				for _, in := range s.Status.LoadBalancer.Ingress {
					key := fmt.Sprint(in.IP, " ", s.Spec.Ports[0].Port)
					if has[key] != "" {
						t.Errorf("%s and %s have %s", has[key], s.Name, key)
					}
					has[key] = s.Name
				}
			}
		},
		End: controllertest.Are("ns", func(s *v1.Service) string {
			text := fmt.Sprint(s.Name, " ", slices.Contains(s.Finalizers, finalizer))
			for _, in := range s.Status.LoadBalancer.Ingress {
				text += " " + in.IP
			}
			return text
		}, "also true 192.0.2.2", "two false"),
	}.Survives(t)
}
