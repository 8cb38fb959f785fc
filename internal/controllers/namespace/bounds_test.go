package namespace

import (
	"errors"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	clienttesting "k8s.io/client-go/testing"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

// brokenGroup is a discovery in which one group does not answer.
type brokenGroup struct{ discovery.DiscoveryInterface }

func (d brokenGroup) ServerGroups() (*metav1.APIGroupList, error) {
	groups, err := d.DiscoveryInterface.ServerGroups()
	if err == nil {
		gv := metav1.GroupVersionForDiscovery{GroupVersion: "broken.example.com/v1", Version: "v1"}
		groups.Groups = append(groups.Groups, metav1.APIGroup{Name: "broken.example.com", Versions: []metav1.GroupVersionForDiscovery{gv}, PreferredVersion: gv})
	}
	return groups, err
}

func (d brokenGroup) ServerResourcesForGroupVersion(gv string) (*metav1.APIResourceList, error) {
	if strings.HasPrefix(gv, "broken") {
		return nil, errors.New("it does not answer")
	}
	return d.DiscoveryInterface.ServerResourcesForGroupVersion(gv)
}

// TestMisfits checks that a namespace that cannot go says why, is looked at ever more
// rarely, and holds up no other.
func TestMisfits(t *testing.T) {
	object := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	namespace := func(name string) *v1.Namespace {
		return &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.NamespaceSpec{Finalizers: []v1.FinalizerName{v1.FinalizerKubernetes}}}
	}
	held := &v1.ConfigMap{ObjectMeta: object("bad", "held")}
	held.Finalizers = []string{"example.com/hold"}
	for name, c := range map[string]struct {
		context   func(*controllers.Context)
		refuse    func(clienttesting.Action) error
		world     []controllertest.Object
		condition v1.NamespaceConditionType
		message   string
		reads     int
	}{
		"a finalizer that never goes": {world: []controllertest.Object{held}, condition: v1.NamespaceFinalizersRemaining,
			message: "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances", reads: 200},
		"a group that does not answer": {context: func(c *controllers.Context) { c.Discovery = brokenGroup{c.Discovery} }, condition: v1.NamespaceDeletionDiscoveryFailure,
			message: "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: broken.example.com/v1: it does not answer", reads: 500},
		"a deletion that is refused": {world: []controllertest.Object{&v1.ConfigMap{ObjectMeta: object("bad", "c")}}, refuse: func(a clienttesting.Action) error {
			if a.GetResource() == (schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}) && strings.HasPrefix(a.GetVerb(), "delete") {
				return errors.New("no")
			}
			return nil
		}, condition: v1.NamespaceDeletionContentFailure, message: "Failed to delete all resource types, 1 remaining: no", reads: 500},
	} {
		t.Run(name, func(t *testing.T) {
			controllertest.Misfit{
				Controllers: []controllertest.Constructor{New}, Context: c.context, Refuse: c.refuse,
				World: append(c.world, namespace("bad"), namespace("good"), &v1.Secret{ObjectMeta: object("good", "s")}),
				Begin: controllertest.Removes[*v1.Namespace]("", "bad"),
				Told: controllertest.Is("", "bad", func(ns *v1.Namespace) error {
					for _, cond := range ns.Status.Conditions {
						if cond.Type == c.condition && cond.Status == v1.ConditionTrue && cond.Message == c.message {
							return nil
						}
					}
					return controllertest.Unless(false, "the conditions are %+v", ns.Status.Conditions)
				}),
				Reads: c.reads, Writes: 100,
				Later: controllertest.Removes[*v1.Namespace]("", "good"),
				Fine: controllertest.Facts(
					controllertest.Are("good", controllertest.Name[*v1.Secret]),
					func(t *testing.T, cl *controllertest.Cluster) {
						if _, ok := controllertest.Find[*v1.Namespace](cl, "", "good"); ok && c.context == nil && c.refuse == nil {
							t.Error("the other namespace has not gone")
						}
					},
				),
			}.Bounded(t)
		})
	}
}
