package namespace

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that what is in a namespace goes with it in the end, and nothing
// else.
func TestSurvives(t *testing.T) {
	object := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	namespace := func(name string) *v1.Namespace {
		return &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.NamespaceSpec{Finalizers: []v1.FinalizerName{v1.FinalizerKubernetes}}}
	}
	held := &v1.ConfigMap{ObjectMeta: object("ns", "held")}
	held.Finalizers = []string{"example.com/hold"}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{namespace("ns"), namespace("stays"), held, &v1.Pod{ObjectMeta: object("ns", "p")}, &v1.Secret{ObjectMeta: object("ns", "s")},
			&v1.Pod{ObjectMeta: object("stays", "p")}, &v1.ConfigMap{ObjectMeta: object("stays", "c")}},
		Actions: []controllertest.Action{
			controllertest.Removes[*v1.Namespace]("", "ns"),
			controllertest.Creates(namespace("new"), &v1.Pod{ObjectMeta: object("new", "p")}),
			controllertest.Edits("ns", "held", func(m *v1.ConfigMap) { m.Finalizers = nil }),
		},
		End: controllertest.Facts(
			controllertest.Are("", controllertest.Name[*v1.Namespace], "stays", "new"),
			controllertest.Are("", func(p *v1.Pod) string { return p.Namespace }, "stays", "new"),
			controllertest.Are("", func(m *v1.ConfigMap) string { return m.Namespace }, "stays"),
			controllertest.Are("", func(s *v1.Secret) string { return s.Namespace }),
		),
	}.Survives(t)
}
