package serviceaccount

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func namespace(name string) *v1.Namespace {
	return &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// TestSurvives checks that each namespace has its account in the end, one that was
// deleted, too.
func TestSurvives(t *testing.T) {
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{namespace("a"), namespace("b")},
		Actions: []controllertest.Action{
			controllertest.Creates(namespace("c")),
			controllertest.Then(controllertest.Removes[*v1.ServiceAccount]("a", name), controllertest.Creates(namespace("d"))),
			controllertest.Removes[*v1.ServiceAccount]("b", name),
		},
		End: controllertest.Are("", func(a *v1.ServiceAccount) string { return a.Namespace + "/" + a.Name }, "a/default", "b/default", "c/default", "d/default"),
	}.Survives(t)
}
