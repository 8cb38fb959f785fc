package storagemigration

import (
	"time"

	v1 "k8s.io/api/storagemigration/v1"
	"k8s.io/api/storagemigration/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of storagemigration.k8s.io. Migrations are stored as
// v1beta1, which the last release knows too, as upstream's are.
func Resources() []*api.Resource {
	stable := common()
	stable.Hub = &api.Hub{Resource: v1beta1.SchemeGroupVersion.WithResource("storageversionmigrations"), ToHub: toHub, FromHub: fromHub}
	return []*api.Resource{
		row.New[v1.StorageVersionMigrationList](v1.SchemeGroupVersion, stable, row.Kind[*v1.StorageVersionMigration]{
			Spec:       func(m *v1.StorageVersionMigration) any { return &m.Spec },
			Status:     func(m *v1.StorageVersionMigration) any { return &m.Status },
			Generation: true,
			Validate:   func(m *v1.StorageVersionMigration) field.ErrorList { return validate(asBeta(m)) },
			ValidateUpdate: func(m, old *v1.StorageVersionMigration) field.ErrorList {
				return validateUpdate(asBeta(m), asBeta(old))
			},
			ValidateStatusUpdate: func(m, old *v1.StorageVersionMigration) field.ErrorList {
				return validateStatus(asBeta(m), asBeta(old))
			},
			Cells: func(m *v1.StorageVersionMigration, _ time.Time) []any { return []any{m.Name, m.Spec.Resource.String()} },
		}),
		row.New[v1beta1.StorageVersionMigrationList](v1beta1.SchemeGroupVersion, common(), row.Kind[*v1beta1.StorageVersionMigration]{
			Spec:                 func(m *v1beta1.StorageVersionMigration) any { return &m.Spec },
			Status:               func(m *v1beta1.StorageVersionMigration) any { return &m.Status },
			Generation:           true,
			Validate:             validate,
			ValidateUpdate:       validateUpdate,
			ValidateStatusUpdate: validateStatus,
			Cells: func(m *v1beta1.StorageVersionMigration, _ time.Time) []any {
				return []any{m.Name, m.Spec.Resource.String()}
			},
		}),
	}
}

// common returns the fields that the rows of the two versions share.
func common() api.Resource {
	return api.Resource{
		Strategy: api.Strategy{RequireResourceVersion: true},
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Resource", "Fully qualified resource to migrate"),
		},
	}
}

func asBeta(m *v1.StorageVersionMigration) *v1beta1.StorageVersionMigration {
	return &v1beta1.StorageVersionMigration{
		ObjectMeta: m.ObjectMeta, Spec: v1beta1.StorageVersionMigrationSpec(m.Spec), Status: v1beta1.StorageVersionMigrationStatus(m.Status),
	}
}

func toHub(obj runtime.Object) (runtime.Object, error) {
	m := obj.(*v1.StorageVersionMigration)
	out := asBeta(m)
	if m.Kind != "" {
		out.SetGroupVersionKind(v1beta1.SchemeGroupVersion.WithKind(m.Kind))
	}
	return out, nil
}

func fromHub(hub runtime.Object) (runtime.Object, error) {
	m := hub.(*v1beta1.StorageVersionMigration)
	out := &v1.StorageVersionMigration{
		ObjectMeta: m.ObjectMeta, Spec: v1.StorageVersionMigrationSpec(m.Spec), Status: v1.StorageVersionMigrationStatus(m.Status),
	}
	if m.Kind != "" {
		out.SetGroupVersionKind(v1.SchemeGroupVersion.WithKind(m.Kind))
	}
	return out, nil
}

func is(m *v1beta1.StorageVersionMigration, t v1beta1.MigrationConditionType) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(t))
}
