package rootca

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that each namespace has the bundle in the end, whoever made, changed
// or deleted its ConfigMap.
func TestSurvives(t *testing.T) {
	namespace := func(name string) *v1.Namespace { return &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		Context: func(c *controllers.Context) { c.RootCA = []byte("pem") },
		World:   []controllertest.Object{namespace("a"), namespace("b")},
		Actions: []controllertest.Action{
			controllertest.Creates(&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "c", Name: name}, Data: map[string]string{key: "another"}}, namespace("c")),
			controllertest.Then(controllertest.Removes[*v1.ConfigMap]("a", name), controllertest.Creates(namespace("d"))),
			controllertest.Then(controllertest.Removes[*v1.ConfigMap]("b", name), controllertest.Offers(&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "b", Name: name}})),
			controllertest.Edits("a", name, func(m *v1.ConfigMap) { m.Data[key] = "changed" }),
		},
		End: controllertest.Are("", func(m *v1.ConfigMap) string { return m.Namespace + " " + m.Data[key] }, "a pem", "b pem", "c pem", "d pem"),
	}.Survives(t)
}
