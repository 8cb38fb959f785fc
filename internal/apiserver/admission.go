package apiserver

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission"

	"keelson.dev/keelson/internal/trace"
)

// chain returns the admission chain, whose annotations go to the audit log.
func (r *call) chain() admission.Interface {
	if r.s.Audit == nil || r.s.Admission == nil {
		return r.s.Admission
	}
	return admission.WithAudit(r.s.Admission)
}

func (r *call) mutate(a admission.Attributes) error {
	m, ok := r.chain().(admission.MutationInterface)
	if !ok || !m.Handles(a.GetOperation()) {
		return nil
	}
	before := keepManagers(a.GetObject())
	begin := time.Now()
	err := m.Admit(r.timed(), a, r.s.Objects)
	r.timing.Admitted(begin)
	if err != nil {
		return err
	}
	if err := before.restore(a.GetObject()); err != nil {
		r.warnings.AddWarning("", fmt.Sprintf(".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: %v", err))
	}
	return nil
}

func (r *call) validate(a admission.Attributes) error {
	v, ok := r.chain().(admission.ValidationInterface)
	if !ok || !v.Handles(a.GetOperation()) {
		return nil
	}
	begin := time.Now()
	err := v.Validate(r.timed(), a, r.s.Objects)
	r.timing.Admitted(begin)
	return err
}

// timed returns the context in which admission records how long its parts take.
func (r *call) timed() context.Context {
	if r.timing == nil {
		return r.ctx()
	}
	return trace.WithTiming(r.ctx(), r.timing)
}

// admissionOptions returns the options of a write as admission sees them: with
// their kind, and for a patch as those of the creation or update that it is.
func admissionOptions(op admission.Operation, options runtime.Object) runtime.Object {
	if p, ok := options.(*metav1.PatchOptions); ok && op == admission.Create {
		options = &metav1.CreateOptions{DryRun: p.DryRun, FieldManager: p.FieldManager, FieldValidation: p.FieldValidation}
	} else if ok {
		options = &metav1.UpdateOptions{DryRun: p.DryRun, FieldManager: p.FieldManager, FieldValidation: p.FieldValidation}
	}
	switch o := options.(type) {
	case *metav1.CreateOptions:
		o.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("CreateOptions"))
	case *metav1.UpdateOptions:
		o.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("UpdateOptions"))
	case *metav1.DeleteOptions:
		o.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("DeleteOptions"))
	}
	return options
}

// keptManagers holds an object's managed fields from before admission: those of a typed
// object, or the list of one without a Go type.
type keptManagers struct {
	typed   []metav1.ManagedFieldsEntry
	untyped []any
}

func keepManagers(obj runtime.Object) (m keptManagers) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		metadata, _ := u.Object["metadata"].(map[string]any)
		m.untyped, _ = metadata["managedFields"].([]any)
	} else if acc, err := meta.Accessor(obj); err == nil {
		m.typed = acc.GetManagedFields()
	}
	return m
}

// restore puts m back into obj if what it has now in its place cannot be read.
func (m keptManagers) restore(obj runtime.Object) error {
	now := keepManagers(obj)
	if sameSlice(m.typed, now.typed) && sameSlice(m.untyped, now.untyped) {
		return nil
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil //nolint:nilerr // it has no managed fields
	}
	if err = managedfields.ValidateManagedFields(acc.GetManagedFields()); err == nil {
		return nil
	}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		if m.untyped == nil {
			unstructured.RemoveNestedField(u.Object, "metadata", "managedFields")
		} else if metadata, ok := u.Object["metadata"].(map[string]any); ok {
			metadata["managedFields"] = m.untyped
		}
		return err
	}
	acc.SetManagedFields(m.typed)
	return err
}

// sameSlice reports whether a and b are one slice.
func sameSlice[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }
