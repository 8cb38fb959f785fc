package resourcequota

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that in the end each quota has counted what there is.
func TestSurvives(t *testing.T) {
	object := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "ns", Name: name} }
	quota := func(name string, resources ...v1.ResourceName) *v1.ResourceQuota {
		q := &v1.ResourceQuota{ObjectMeta: object(name), Spec: v1.ResourceQuotaSpec{Hard: v1.ResourceList{}}}
		for _, r := range resources {
			q.Spec.Hard[r] = resource.MustParse("10")
		}
		return q
	}
	pod := func(name string) *v1.Pod { return &v1.Pod{ObjectMeta: object(name)} }
	configMap := func(name string) *v1.ConfigMap { return &v1.ConfigMap{ObjectMeta: object(name)} }
	controllertest.Trial{
		Seeds: 150, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{quota("pods", v1.ResourcePods), pod("a"), pod("b"), configMap("a")},
		Actions: []controllertest.Action{
			controllertest.Creates(quota("maps", "count/configmaps"), configMap("b"), configMap("c")),
			controllertest.Then(controllertest.Removes[*v1.Pod]("ns", "a"), controllertest.Creates(pod("c"), pod("d"))),
			controllertest.Then(controllertest.Removes[*v1.ConfigMap]("ns", "b"), controllertest.Edits("ns", "pods", func(q *v1.ResourceQuota) { q.Spec.Hard[v1.ResourcePods] = resource.MustParse("20") })),
		},
		End: controllertest.Are("ns", func(q *v1.ResourceQuota) string {
			text := q.Name
			for r, hard := range q.Status.Hard {
				used := q.Status.Used[r]
				text += " " + used.String() + " of " + hard.String()
			}
			return text
		}, "pods 3 of 20", "maps 2 of 10"),
	}.Survives(t)
}
