package endpointslice

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestManyPods checks that a Service that selects very many pods is written once for all of
// them, and a change of one writes one slice and the Endpoints.
func TestManyPods(t *testing.T) {
	all, good := service(), service()
	all.Name, good.Name, good.Spec.Selector = "all", "good", map[string]string{"one": "pod"}
	world := []controllertest.Object{all, good, &v1.Node{}}
	world[2].SetName("a")
	for i := range 450 {
		world = append(world, pod(fmt.Sprint("p", i), "a", true, fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)))
	}
	one := pod("one", "a", true, "10.9.0.1")
	one.Labels["one"] = "pod"
	count := func(c *controllertest.Cluster, of string) (slices, endpoints int) {
		for _, s := range controllertest.All[*discoveryv1.EndpointSlice](c, "ns") {
			if s.Labels[discoveryv1.LabelServiceName] == of {
				slices++
				endpoints += len(s.Endpoints)
			}
		}
		return slices, endpoints
	}
	controllertest.Misfit{
		Controllers: []controllertest.Constructor{New, NewEndpoints}, World: world,
		Told: func(t *testing.T, c *controllertest.Cluster) {
			if slices, endpoints := count(c, "all"); endpoints != 450 || slices > 5 {
				t.Errorf("%d slices with %d endpoints", slices, endpoints)
			}
		},
		Reads: 1, Writes: 1,
		Later: controllertest.Creates(one),
		Fine: func(t *testing.T, c *controllertest.Cluster) {
			if _, n := count(c, "good"); n != 1 {
				t.Errorf("the other service has %d endpoints", n)
			}
		},
	}.Bounded(t)
}
