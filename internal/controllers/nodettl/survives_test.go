package nodettl

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that each node has the time in the end, though somebody changes it.
func TestSurvives(t *testing.T) {
	node := func(name string) *v1.Node { return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{node("a"), node("b")},
		Actions: []controllertest.Action{
			controllertest.Creates(node("c")),
			controllertest.Edits("", "a", func(n *v1.Node) { n.Annotations = map[string]string{v1.ObjectTTLAnnotationKey: "7"} }),
			controllertest.Then(controllertest.Removes[*v1.Node]("", "b"), controllertest.Creates(node("b"))),
		},
		End: controllertest.Are("", func(n *v1.Node) string { return n.Name + n.Annotations[v1.ObjectTTLAnnotationKey] }, "a0", "b0", "c0"),
	}.Survives(t)
}
