package storagemigration

import (
	"strings"

	"k8s.io/api/storagemigration/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validate(m *v1beta1.StorageVersionMigration) (errs field.ErrorList) {
	at, r := field.NewPath("spec", "resource"), m.Spec.Resource
	if r.Resource == "" {
		errs = append(errs, field.Required(at.Child("resource"), "resource is required to be set"))
	} else if msgs := validation.IsDNS1035Label(r.Resource); len(msgs) > 0 {
		errs = append(errs, field.Invalid(at.Child("resource"), r.Resource, strings.Join(msgs, ",")))
	}
	if msgs := validation.IsDNS1123Subdomain(r.Group); r.Group != "" && len(msgs) > 0 {
		errs = append(errs, field.Invalid(at.Child("group"), r.Group, strings.Join(msgs, ",")))
	}
	return errs
}

func validateUpdate(m, old *v1beta1.StorageVersionMigration) field.ErrorList {
	return append(validate(m), apivalidation.ValidateImmutableField(m.Spec, old.Spec, field.NewPath("spec"))...)
}

func validateStatus(m, old *v1beta1.StorageVersionMigration) (errs field.ErrorList) {
	at, rv := field.NewPath("status", "resourceVersion"), m.Status.ResourceVersion
	// A migration of what is not there ends without one.
	if _, err := resourceversion.CompareResourceVersion(rv, rv); rv != "" && err != nil {
		errs = append(errs, field.Invalid(at, rv, err.Error()))
	}
	conditions := field.NewPath("status", "conditions")
	errs = append(errs, metav1validation.ValidateConditions(m.Status.Conditions, conditions)...)
	if was := old.Status.ResourceVersion; was != "" && was != rv {
		errs = append(errs, field.Invalid(at, rv, "field is immutable"))
	}
	refuse := func(when bool, message string) {
		if when {
			errs = append(errs, field.Invalid(conditions, m.Status.Conditions, message))
		}
	}
	succeeded, failed, running := is(m, v1beta1.MigrationSucceeded), is(m, v1beta1.MigrationFailed), is(m, v1beta1.MigrationRunning)
	refuse(succeeded && failed, "Both success and failed conditions cannot be true at the same time")
	refuse(succeeded && running, "Running condition cannot be true when success condition is true")
	refuse(failed && running, "Running condition cannot be true when failed condition is true")
	refuse(is(old, v1beta1.MigrationSucceeded) && !succeeded, "Success condition cannot be set to false once it is true")
	refuse(is(old, v1beta1.MigrationFailed) && !failed, "Failed condition cannot be set to false once it is true")
	return errs
}
