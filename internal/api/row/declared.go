package row

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api/validation"
)

// declared is the validation that a kind's markers declare.
type declared[T Object] validation.Func[T]

// options are the features that markers ask about.
var options = map[string]bool{
	"DRAPartitionableDevicesType":                  false,
	"HPAScaleToZero":                               true,
	"InPlacePodVerticalScalingSchedulerPreemption": false,
	"WorkloadWithJob":                              false,
}

// beside adds what f says of obj to errs, which the kind's own rules say of it.
func (f declared[T]) beside(errs field.ErrorList, kind operation.Type, obj, old T) field.ErrorList {
	ctx := context.Background()
	all := f(ctx, operation.Operation{Type: kind, Options: options}, nil, obj, old)
	if len(all) == 0 {
		return errs
	}
	all = validate.FilterEnforcedDeclarativeErrors(ctx, all, true)
	errs = slices.DeleteFunc(errs, func(e *field.Error) bool {
		return slices.ContainsFunc(all, func(d *field.Error) bool { return covers(d, e) })
	})
	return append(errs, all...)
}

// inUpdates puts f beside own, which may be nil.
func (f declared[T]) inUpdates(own func(obj, old T) field.ErrorList) func(obj, old T) field.ErrorList {
	return func(obj, old T) (errs field.ErrorList) {
		if own != nil {
			errs = own(obj, old)
		}
		return f.beside(errs, operation.Update, obj, old)
	}
}

// covers reports whether d and e are the same error about the same field. A field may
// be invalid for several reasons.
func covers(d, e *field.Error) bool {
	return d.Type == e.Type && d.Field == e.Field && (d.Type != field.ErrorTypeInvalid || d.Detail == e.Detail)
}
