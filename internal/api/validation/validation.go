package validation

import (
	"context"
	"reflect"

	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Func validates obj by the rules of its kind; old is nil for a creation.
type Func[T any] func(ctx context.Context, op operation.Operation, at *field.Path, obj, old T) field.ErrorList

// For returns the function of the kind whose objects are of type T, a pointer; nil if it
// has no rules.
func For[T any]() Func[T] {
	f, _ := table[reflect.TypeFor[T]()].(func(context.Context, operation.Operation, *field.Path, T, T) field.ErrorList)
	return f
}
