package resource

import (
	"context"

	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// declared gives the errors of obj by the rules that the API's types declare
// (KEP-5073), which the published library has as code. Those that are alpha are
// not in force. A part that is as it is in old, if there is one, is not looked at.
func declared[T any](rules func(context.Context, operation.Operation, *field.Path, *T, *T) field.ErrorList, obj, old *T, fldPath *field.Path) field.ErrorList {
	op := operation.Operation{Type: operation.Create, Options: map[string]bool{"DRAPartitionableDevicesType": false}}
	if old != nil {
		op.Type = operation.Update
	}
	ctx := context.Background()
	return validate.FilterEnforcedDeclarativeErrors(ctx, rules(ctx, op, fldPath, obj, old), true)
}
