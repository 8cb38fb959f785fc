package storagemigration

import (
	"strconv"
	"time"

	v1beta1 "k8s.io/api/storagemigration/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	unversionedvalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources gives the rows of storagemigration.k8s.io/v1beta1.
func Resources() []*api.Resource {
	r := api.Resource{
		GroupVersionResource: v1beta1.SchemeGroupVersion.WithResource("storageversionmigrations"),
		Kind:                 "StorageVersionMigration",
		Singular:             "storageversionmigration",
		New:                  func() runtime.Object { return &v1beta1.StorageVersionMigration{} },
		NewList:              func() runtime.Object { return &v1beta1.StorageVersionMigrationList{} },
		StoragePrefix:        "storageversionmigrations",
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Resource", v1beta1.StorageVersionMigrationSpec{}.SwaggerDoc()["resource"]),
			row.String("Status", v1beta1.StorageVersionMigrationStatus{}.SwaggerDoc()["conditions"]),
			row.Age(),
		},
	}
	return []*api.Resource{row.New(r, row.Kind[*v1beta1.StorageVersionMigration]{
		Spec:                 func(m *v1beta1.StorageVersionMigration) any { return &m.Spec },
		Status:               func(m *v1beta1.StorageVersionMigration) any { return &m.Status },
		Generation:           true,
		Validate:             validate,
		ValidateUpdate:       validateUpdate,
		ValidateStatusUpdate: validateStatus,
		Cells: func(m *v1beta1.StorageVersionMigration, now time.Time) []any {
			gr := metav1.GroupResource{Group: m.Spec.Resource.Group, Resource: m.Spec.Resource.Resource}
			return []any{m.Name, gr.String(), state(m), row.Created(m, now)}
		},
	})}
}

func is(m *v1beta1.StorageVersionMigration, t v1beta1.MigrationConditionType) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(t))
}

// state is what the migration has come to.
func state(m *v1beta1.StorageVersionMigration) string {
	for _, t := range []v1beta1.MigrationConditionType{v1beta1.MigrationSucceeded, v1beta1.MigrationFailed, v1beta1.MigrationRunning} {
		if is(m, t) {
			return string(t)
		}
	}
	return "Pending"
}

func validate(m *v1beta1.StorageVersionMigration) (errs field.ErrorList) {
	if m.Spec.Resource.Resource == "" {
		errs = append(errs, field.Required(field.NewPath("spec", "resource", "resource"), "resource is required"))
	}
	return errs
}

func validateUpdate(m, old *v1beta1.StorageVersionMigration) field.ErrorList {
	at := field.NewPath("spec", "resource")
	errs := append(validate(m), apivalidation.ValidateImmutableField(m.Spec.Resource.Group, old.Spec.Resource.Group, at.Child("group"))...)
	return append(errs, apivalidation.ValidateImmutableField(m.Spec.Resource.Resource, old.Spec.Resource.Resource, at.Child("resource"))...)
}

func validateStatus(m, old *v1beta1.StorageVersionMigration) (errs field.ErrorList) {
	at := field.NewPath("status", "resourceVersion")
	if rv := m.Status.ResourceVersion; rv != "" {
		n, err := strconv.ParseInt(rv, 10, 64)
		if err != nil {
			errs = append(errs, field.Invalid(at, rv, "failed to parse resource version \""+rv+"\": "+err.Error()))
		}
		errs = append(errs, apivalidation.ValidateNonnegativeField(n, at)...)
	}
	if was := old.Status.ResourceVersion; was != "" && was != m.Status.ResourceVersion {
		errs = append(errs, field.Invalid(at, m.Status.ResourceVersion, "cannot be updated"))
	}
	conditions := field.NewPath("status", "conditions")
	errs = append(errs, unversionedvalidation.ValidateConditions(m.Status.Conditions, conditions)...)
	refuse := func(message string) { errs = append(errs, field.Invalid(conditions, m.Status.Conditions, message)) }
	succeeded, failed, running := is(m, v1beta1.MigrationSucceeded), is(m, v1beta1.MigrationFailed), is(m, v1beta1.MigrationRunning)
	if succeeded && failed {
		refuse("Both success and failed conditions cannot be true at the same time")
	}
	if succeeded && running {
		refuse("Running condition cannot be true when success condition is true")
	}
	if failed && running {
		refuse("Running condition cannot be true when failed condition is true")
	}
	if is(old, v1beta1.MigrationSucceeded) && !succeeded {
		refuse("Success condition cannot be set to false once it is true")
	}
	if is(old, v1beta1.MigrationFailed) && !failed {
		refuse("Failed condition cannot be set to false once it is true")
	}
	return errs
}
