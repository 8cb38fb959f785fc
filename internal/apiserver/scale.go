package apiserver

import (
	"fmt"
	"mime"
	"net/http"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/yaml"

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

// scale serves the scale subresource.
func (r *call) scale() error {
	c := r.as(scaleRow)
	defer func() { r.code = c.code }()
	switch r.info.Verb {
	case "get":
		e, err := r.entry()
		if err != nil {
			return err
		}
		s, err := r.scaleOf(e.Object())
		if err != nil {
			return err
		}
		return c.writeObject(http.StatusOK, s)
	case "update", "patch":
	default:
		return r.methodNotSupported()
	}
	w := writing{verb: r.info.Verb, subresource: "scale"}
	var want func(live *autoscalingv1.Scale) (*autoscalingv1.Scale, error)
	if r.info.Verb == "update" {
		opts := &metav1.UpdateOptions{}
		if err := r.options(opts); err != nil {
			return err
		}
		if err := invalidOptions("UpdateOptions", metav1validation.ValidateUpdateOptions(opts)); err != nil {
			return err
		}
		obj, err := c.decode(&autoscalingv1.Scale{}, scaleRow.GVK(), opts.FieldValidation)
		if err != nil {
			return err
		}
		s := obj.(*autoscalingv1.Scale)
		if err := c.checkName(s); err != nil {
			return err
		}
		w.options, w.dryRun, w.fieldManager = opts, isDryRun(opts.DryRun), opts.FieldManager
		want = func(*autoscalingv1.Scale) (*autoscalingv1.Scale, error) { return s, nil }
	} else {
		kind, _, _ := mime.ParseMediaType(r.req.Header.Get("Content-Type"))
		patchType := types.PatchType(kind)
		opts := &metav1.PatchOptions{}
		if err := r.options(opts); err != nil {
			return err
		}
		if err := invalidOptions("PatchOptions", metav1validation.ValidatePatchOptions(opts, patchType)); err != nil {
			return err
		}
		data, err := r.body()
		if err != nil {
			return err
		}
		switch patchType {
		case types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType:
		case types.ApplyYAMLPatchType:
			if data, err = yaml.YAMLToJSON(data); err != nil {
				return badRequest("error decoding YAML: %v", err)
			}
			patchType = types.MergePatchType
		default:
			return unsupportedMediaType([]string{string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyYAMLPatchType)})
		}
		w.options, w.dryRun, w.fieldManager, w.retries = opts, isDryRun(opts.DryRun), opts.FieldManager, patchRetries
		want = func(live *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
			obj, err := c.patched(live, data, patchType, opts.FieldValidation)
			if err != nil {
				return nil, err
			}
			return obj.(*autoscalingv1.Scale), nil
		}
	}
	// Admission sees the Scale, not what is scaled.
	w.seen = func(obj, old runtime.Object) (admission.Attributes, func(), error) {
		s, err := r.scaleOf(obj)
		if err != nil {
			return nil, nil, err
		}
		was, err := r.scaleOf(old)
		if err != nil {
			return nil, nil, err
		}
		return admission.NewAttributesRecord(s, was, scaleRow.GVK(), r.info.Namespace, r.info.Name, r.row.GroupVersionResource,
			"scale", admission.Update, admissionOptions(admission.Update, w.options), w.dryRun, r.user), func() { r.row.Scale.Set(obj, s.Spec.Replicas) }, nil
	}
	e, _, err := r.change(&r.row.UpdateStrategy, w, func(old runtime.Object) (runtime.Object, error) {
		live, err := r.scaleOf(old)
		if err != nil {
			return nil, err
		}
		s, err := want(live)
		if err != nil {
			return nil, err
		}
		if s.UID != "" && s.UID != live.UID {
			return nil, apierrors.NewConflict(r.groupResource(), r.info.Name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", s.UID, live.UID))
		}
		if s.Spec.Replicas < 0 {
			return nil, apierrors.NewInvalid(scaleRow.GVK().GroupKind(), s.Name, field.ErrorList{
				field.Invalid(field.NewPath("spec", "replicas"), s.Spec.Replicas, "must be greater than or equal to 0")})
		}
		obj := old.DeepCopyObject()
		acc, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		acc.SetResourceVersion(s.ResourceVersion)
		r.row.Scale.Set(obj, s.Spec.Replicas)
		return obj, nil
	})
	if err != nil {
		return err
	}
	s, err := r.scaleOf(e.Object())
	if err != nil {
		return err
	}
	return c.writeObject(http.StatusOK, s)
}

func (r *call) scaleOf(obj runtime.Object) (*autoscalingv1.Scale, error) {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	s := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{
		Name: acc.GetName(), Namespace: acc.GetNamespace(), UID: acc.GetUID(),
		ResourceVersion: acc.GetResourceVersion(), CreationTimestamp: acc.GetCreationTimestamp(),
	}}
	s.Spec.Replicas, s.Status.Replicas, s.Status.Selector = r.row.Scale.Get(obj)
	return s, nil
}
