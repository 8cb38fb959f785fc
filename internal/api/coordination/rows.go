package coordination

import (
	"strings"
	"time"

	v1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of coordination.k8s.io/v1.
func Resources() []*api.Resource {
	r := api.Resource{
		Namespaced: true,
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Holder", v1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]),
			row.Age(),
		},
	}
	r.AllowCreateOnUpdate, r.RequireResourceVersion = true, true
	return []*api.Resource{row.New[v1.LeaseList](v1.SchemeGroupVersion, r, row.Kind[*v1.Lease]{
		PrepareForCreate: func(l *v1.Lease) { dropElection(&l.Spec, &v1.LeaseSpec{}) },
		PrepareForUpdate: func(l, old *v1.Lease) { dropElection(&l.Spec, &old.Spec) },
		Validate:         func(l *v1.Lease) field.ErrorList { return validateSpec(&l.Spec, field.NewPath("spec")) },
		ValidateUpdate:   func(l, _ *v1.Lease) field.ErrorList { return validateSpec(&l.Spec, field.NewPath("spec")) },
		Cells: func(l *v1.Lease, now time.Time) []any {
			holder := ""
			if l.Spec.HolderIdentity != nil {
				holder = *l.Spec.HolderIdentity
			}
			return []any{l.Name, holder, row.Created(l, now)}
		},
	})}
}

func validateSpec(spec *v1.LeaseSpec, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if d := spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(fldPath.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := spec.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(fldPath.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	if s := spec.Strategy; s != nil {
		errs = append(errs, validateStrategy(*s, fldPath.Child("strategy"))...)
	}
	if p := spec.PreferredHolder; p != nil && *p != "" && (spec.Strategy == nil || *spec.Strategy == "") {
		errs = append(errs, field.Forbidden(fldPath.Child("preferredHolder"), "may only be specified if `strategy` is defined"))
	}
	return errs
}

// validateStrategy checks that Kubernetes' own strategies are bare words;
// others are qualified with a domain.
func validateStrategy(s v1.CoordinatedLeaseStrategy, fldPath *field.Path) (errs field.ErrorList) {
	if !strings.Contains(string(s), "/") {
		if s != v1.OldestEmulationVersion {
			errs = append(errs, field.NotSupported(fldPath, s, []v1.CoordinatedLeaseStrategy{v1.OldestEmulationVersion}))
		}
		return errs
	}
	for _, msg := range validation.IsQualifiedName(string(s)) {
		errs = append(errs, field.Invalid(fldPath, s, msg))
	}
	return errs
}

// dropElection drops the fields of coordinated leader election (KEP-4355), a
// feature that is off by default, unless the lease has them already.
func dropElection(s, old *v1.LeaseSpec) {
	if old.Strategy == nil {
		s.Strategy = nil
	}
	if old.PreferredHolder == nil {
		s.PreferredHolder = nil
	}
}
