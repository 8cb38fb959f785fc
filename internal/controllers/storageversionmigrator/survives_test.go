package storageversionmigrator

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/api/storagemigration/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that each migration has ended in the end, having written each object,
// and that one of a resource that there is not has failed.
func TestSurvives(t *testing.T) {
	migration := func(resource string) *v1beta1.StorageVersionMigration {
		return &v1beta1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: resource}, Spec: v1beta1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Resource: resource}}}
	}
	world := []controllertest.Object{migration("configmaps")}
	for i := range 5 {
		world = append(world, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint(i), ResourceVersion: "1"}})
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New}, World: world,
		Actions: []controllertest.Action{
			controllertest.Removes[*v1.ConfigMap]("ns", "3"),
			controllertest.Creates(migration("unicorns"), migration("secrets")),
			controllertest.Edits("ns", "4", func(m *v1.ConfigMap) { m.Data = map[string]string{"k": "v"} }),
		},
		End: controllertest.Are("", func(m *v1beta1.StorageVersionMigration) string {
			text := m.Name
			for _, c := range m.Status.Conditions {
				text += fmt.Sprintf(" %s=%s %s", c.Type, c.Status, c.Message)
			}
			return text
		}, "configmaps Running=False  Succeeded=True ", "secrets Running=False  Succeeded=True ", "unicorns Failed=True resource not found"),
	}.Survives(t)
}
