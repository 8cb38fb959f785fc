package admission

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
)

// function is a plug-in's change or check of the requests that it concerns.
type function struct {
	concerns func(a admission.Attributes) bool
	run      func(ctx context.Context, a admission.Attributes) error
}

// onObject makes the function of requests with an object of type T: those for the object
// itself, unless subresources are named.
func onObject[T runtime.Object](f func(ctx context.Context, a admission.Attributes, obj T) error, subresources ...string) *function {
	return &function{
		concerns: func(a admission.Attributes) bool {
			_, ok := a.GetObject().(T)
			return ok && (len(subresources) == 0 && a.GetSubresource() == "" || slices.Contains(subresources, a.GetSubresource()))
		},
		run: func(ctx context.Context, a admission.Attributes) error { return f(ctx, a, a.GetObject().(T)) },
	}
}

// onRequest makes the function of all requests.
func onRequest(f func(ctx context.Context, a admission.Attributes) error) *function {
	return &function{concerns: func(admission.Attributes) bool { return true }, run: f}
}

// either makes the function of the requests that the first of fs concerns which
// concerns them.
func either(fs ...*function) *function {
	first := func(a admission.Attributes) *function {
		for _, f := range fs {
			if f.concerns(a) {
				return f
			}
		}
		return nil
	}
	return &function{
		concerns: func(a admission.Attributes) bool { return first(a) != nil },
		run:      func(ctx context.Context, a admission.Attributes) error { return first(a).run(ctx, a) },
	}
}

// plain is a plug-in that is a function of requests, or one in each phase.
type plain struct {
	*admission.Handler
	admits, validates *function // either may be nil
}

// admits makes the plug-in that changes objects by f.
func admits(f *function, on ...admission.Operation) *plain { return both(f, nil, on...) }

// validates makes the plug-in that checks requests by f.
func validates(f *function, on ...admission.Operation) *plain { return both(nil, f, on...) }

// both makes the plug-in that changes objects and checks what became of them.
func both(admit, validate *function, on ...admission.Operation) *plain {
	return &plain{admission.NewHandler(on...), admit, validate}
}

// step runs f as a step of the chain.
func (f *function) step(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return f.run(ctx, a)
}

// Admit implements admission.MutationInterface.
func (p *plain) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return call(ctx, p.admits, a)
}

// Validate implements admission.ValidationInterface.
func (p *plain) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	return call(ctx, p.validates, a)
}

func call(ctx context.Context, f *function, a admission.Attributes) error {
	if f == nil || !f.concerns(a) {
		return nil
	}
	return f.run(ctx, a)
}
