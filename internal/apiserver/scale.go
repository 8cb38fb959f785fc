package apiserver

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// scaleRow describes the wire form of the scale subresource.
var scaleRow = &api.Resource{
	GroupVersionResource: autoscalingv1.SchemeGroupVersion.WithResource("scales"),
	Kind:                 "Scale",
	Namespaced:           true,
	New:                  func() runtime.Object { return &autoscalingv1.Scale{} },
	Columns: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Description: objectMetaDoc["name"]},
		{Name: "Desired", Type: "integer", Description: autoscalingv1.ScaleSpec{}.SwaggerDoc()["replicas"]},
		{Name: "Available", Type: "integer", Description: autoscalingv1.ScaleStatus{}.SwaggerDoc()["replicas"]},
		{Name: "Age", Type: "string", Description: objectMetaDoc["creationTimestamp"]},
	},
	Cells: func(obj runtime.Object, now time.Time) []any {
		s := obj.(*autoscalingv1.Scale)
		return []any{s.Name, int64(s.Spec.Replicas), int64(s.Status.Replicas), row.Created(s, now)}
	},
}

// noReplicas stands for the replicas of an object that has none: a write that
// leaves it unchanged sets no number.
const noReplicas = math.MinInt32

// scaler reads and writes the Scale of an object.
type scaler struct{ writer }

func newScaler(r *call) *scaler { return &scaler{writer{call: r}} }

// scale serves the scale subresource.
func (r *scaler) scale() error {
	c := newScaler(r.as(scaleRow))
	defer func() { r.code = c.code }()
	switch r.info.Verb {
	case "get":
		e, err := r.entry()
		if err != nil {
			return err
		}
		obj, err := versioned(r.row, e.Object())
		if err != nil {
			return err
		}
		s, err := r.scaleOf(obj)
		if err != nil {
			return err
		}
		if s.Spec.Replicas == noReplicas {
			return apierrors.NewInternalError(fmt.Errorf("the spec replicas field %q does not exist", r.replicasPath()))
		}
		return c.writeObject(http.StatusOK, s)
	case "update", "patch":
	default:
		return r.methodNotSupported()
	}
	w := writing{verb: r.info.Verb, subresource: "scale", applied: true}
	want, err := c.wantedScale(&w)
	if err != nil {
		return err
	}
	// Admission sees the Scale, not what is scaled.
	w.seen = func(obj, old runtime.Object) (admission.Attributes, func() error, error) {
		s, err := r.scaleOf(obj)
		if err != nil {
			return nil, nil, err
		}
		was, err := r.scaleOf(old)
		if err != nil {
			return nil, nil, err
		}
		if was.Spec.Replicas == noReplicas {
			was.Spec.Replicas = 0
		}
		return admission.NewAttributesRecord(s, was, scaleRow.GVK(), r.info.Namespace, r.info.Name, r.row.GroupVersionResource,
			"scale", admission.Update, admissionOptions(admission.Update, w.options), w.dryRun, r.user), func() error { return r.row.Scale.Set(obj, s.Spec.Replicas) }, nil
	}
	e, _, err := r.change(&r.row.UpdateStrategy, w, func(old runtime.Object) (runtime.Object, error) { return r.scaled(old, want) })
	if err != nil {
		return err
	}
	obj, err := versioned(r.row, e.Object())
	if err != nil {
		return err
	}
	s, err := r.scaleOf(obj)
	if err != nil {
		return err
	}
	return c.writeObject(http.StatusOK, s)
}

// wantedScale reads what a write of the Scale asks for: it returns a function that
// makes the new Scale, with its managers, of the present one, and fills in w.
func (r *scaler) wantedScale(w *writing) (func(live *autoscalingv1.Scale) (runtime.Object, error), error) {
	if r.info.Verb == "update" {
		opts := &metav1.UpdateOptions{}
		if err := r.options(opts); err != nil {
			return nil, err
		}
		if err := invalidOptions("UpdateOptions", metav1validation.ValidateUpdateOptions(opts)); err != nil {
			return nil, err
		}
		obj, err := r.decode(&autoscalingv1.Scale{}, scaleRow.GVK(), opts.FieldValidation)
		if err != nil {
			return nil, err
		}
		r.auditRequest(obj)
		s := obj.(*autoscalingv1.Scale)
		if err := r.checkName(s); err != nil {
			return nil, err
		}
		if err := r.place(s); err != nil {
			return nil, err
		}
		w.options, w.dryRun, w.fieldManager = opts, isDryRun(opts.DryRun), opts.FieldManager
		return func(live *autoscalingv1.Scale) (runtime.Object, error) {
			return r.manage(s.DeepCopy(), live, w.fieldManager, "scale"), nil
		}, nil
	}
	p, err := r.readPatch()
	if err != nil {
		return nil, err
	}
	w.options, w.dryRun, w.fieldManager, w.retries = p.opts, isDryRun(p.opts.DryRun), p.opts.FieldManager, patchRetries
	return func(live *autoscalingv1.Scale) (runtime.Object, error) {
		obj, err := p.produce(live)
		if err != nil || p.applied {
			return obj, err
		}
		return r.manage(obj, live, w.fieldManager, "scale"), nil
	}, nil
}

// scaled returns old with the replicas that want sets in its Scale, and their
// managers.
func (r *scaler) scaled(old runtime.Object, want func(live *autoscalingv1.Scale) (runtime.Object, error)) (runtime.Object, error) {
	live, err := r.scaleOf(old)
	if err != nil {
		return nil, err
	}
	obj := old.DeepCopyObject()
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	paths := managedfields.ResourcePathMappings{}
	for _, v := range r.s.versions(r.row) {
		paths[v.GroupVersion().String()] = nil
		if v.Scale != nil {
			var path fieldpath.Path
			for _, name := range v.Scale.Path {
				path = append(path, fieldpath.PathElement{FieldName: &name})
			}
			paths[v.GroupVersion().String()] = path
		}
	}
	managers := managedfields.NewScaleHandler(acc.GetManagedFields(), r.row.GroupVersion(), paths)
	if live.ManagedFields, err = managers.ToSubresource(); err != nil {
		return nil, err
	}
	wanted, err := want(live)
	if err != nil {
		return nil, err
	}
	s, ok := wanted.(*autoscalingv1.Scale)
	if !ok {
		return nil, badRequest("wrong object passed to Scale update: %v", wanted)
	}
	if s.UID != "" && s.UID != live.UID {
		return nil, apierrors.NewConflict(r.groupResource(), r.info.Name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", s.UID, live.UID))
	}
	if s.Spec.Replicas == noReplicas {
		return nil, badRequest("the spec replicas field %q cannot be empty", r.replicasPath())
	}
	// The schema of a custom resource bounds its replicas.
	if !isUnstructured(r.row) && s.Spec.Replicas < 0 {
		return nil, apierrors.NewInvalid(scaleRow.GVK().GroupKind(), s.Name, field.ErrorList{
			field.Invalid(field.NewPath("spec", "replicas"), s.Spec.Replicas, "must be greater than or equal to 0")})
	}
	if err := r.row.Scale.Set(obj, s.Spec.Replicas); err != nil {
		return nil, err
	}
	acc.SetResourceVersion(s.ResourceVersion)
	managed, err := managers.ToParent(s.ManagedFields)
	if err != nil {
		return nil, err
	}
	acc.SetManagedFields(managed)
	return obj, nil
}

// replicasPath returns the path of spec.replicas as messages name it.
func (r *scaler) replicasPath() string { return "." + strings.Join(r.row.Scale.Path, ".") }

// scaleOf returns the Scale of an object in the row's version.
func (r *scaler) scaleOf(obj runtime.Object) (*autoscalingv1.Scale, error) {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	s := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{
		Name: acc.GetName(), Namespace: acc.GetNamespace(), UID: acc.GetUID(),
		ResourceVersion: acc.GetResourceVersion(), CreationTimestamp: acc.GetCreationTimestamp(),
	}}
	spec, status, selector, err := r.row.Scale.Get(obj)
	if err != nil {
		return nil, err
	}
	s.Spec.Replicas, s.Status.Replicas, s.Status.Selector = noReplicas, status, selector
	if spec != nil {
		s.Spec.Replicas = *spec
	}
	return s, nil
}
