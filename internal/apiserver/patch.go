package apiserver

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/objectjson"
)

// patchRetries is upstream's bound for a patch that meets other writes.
const patchRetries = 5

// maxPatchOperations bounds a JSON patch, as upstream does.
const maxPatchOperations = 10_000

// maxCopied bounds, in bytes, what the copies of a JSON patch add up to, as upstream
// does: who copies an object into itself a few times over fills any memory. It holds
// for the patches of webhooks and policies as well.
const maxCopied = 3 << 20

func init() { jsonpatch.AccumulatedCopySizeLimit = maxCopied }

// patch changes an object by a patch of any of the five kinds.
func (r *call) patch(strategy *api.UpdateStrategy) error {
	kind, _, err := mime.ParseMediaType(r.req.Header.Get("Content-Type"))
	patchType := types.PatchType(kind)
	kinds := []string{string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyYAMLPatchType), string(types.ApplyCBORPatchType)}
	if isUnstructured(r.row) {
		kinds = []string{kinds[0], kinds[1], kinds[3], kinds[4]}
	}
	known := false
	for _, k := range kinds {
		known = known || k == kind
	}
	if err != nil || !known {
		return unsupportedMediaType(kinds)
	}
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
	r.auditPatch(data)
	w := writing{verb: "patch", subresource: r.info.Subresource, options: opts, dryRun: isDryRun(opts.DryRun), fieldManager: opts.FieldManager, retries: patchRetries}
	var produce func(old runtime.Object) (runtime.Object, error)
	switch patchType {
	case types.ApplyYAMLPatchType, types.ApplyCBORPatchType:
		applied, err := r.appliedObject(data, patchType)
		if err != nil {
			return err
		}
		w.applied, w.upsert = true, r.info.Subresource == ""
		force := opts.Force != nil && *opts.Force
		produce = func(old runtime.Object) (runtime.Object, error) { return r.apply(old, applied, opts, force) }
	default:
		produce = func(old runtime.Object) (runtime.Object, error) {
			return r.patched(old, data, patchType, opts.FieldValidation)
		}
	}
	e, created, err := r.change(strategy, w, produce)
	if err != nil {
		return err
	}
	code := http.StatusOK
	if created {
		code = http.StatusCreated
	}
	return r.writeEntry(code, e)
}

func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}

// patched gives a new object that the patch makes of old.
func (r *call) patched(old runtime.Object, patch []byte, patchType types.PatchType, fieldValidation string) (runtime.Object, error) {
	before, err := marshalJSON(withGVK(r.row.GVK(), old))
	if err != nil {
		return nil, err
	}
	var after []byte
	switch patchType {
	case types.JSONPatchType:
		p, err := jsonpatch.DecodePatch(patch)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if len(p) > maxPatchOperations {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOperations, len(p)))
		}
		if after, err = p.Apply(before); err != nil {
			return nil, unprocessable(err)
		}
	case types.MergePatchType:
		var v map[string]any
		if err := stdjson.Unmarshal(patch, &v); err != nil {
			return nil, badRequest("error decoding patch: %v", err)
		}
		if after, err = jsonpatch.MergePatch(before, patch); err != nil {
			return nil, unprocessable(err)
		}
	case types.StrategicMergePatchType:
		var v map[string]any
		if err := stdjson.Unmarshal(patch, &v); err != nil {
			return nil, badRequest("error decoding patch: %v", err)
		}
		if after, err = strategicpatch.StrategicMergePatch(before, patch, r.row.New()); err != nil {
			switch {
			case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
				errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList),
				errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
				return nil, apierrors.NewBadRequest(err.Error())
			case errors.Is(err, mergepatch.ErrNoListOfLists), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList):
				return nil, unprocessable(err)
			}
			return nil, unprocessable(err)
		}
	}
	obj, err := r.decodeBytes(after, typeJSON, r.row.New(), r.row.GVK(), fieldValidation)
	if err != nil {
		return nil, err
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	if err := r.checkName(acc); err != nil {
		return nil, err
	}
	// A patch is made from what it was applied to, unless it names a version.
	if oldAcc, err := meta.Accessor(old); err == nil && acc.GetResourceVersion() == oldAcc.GetResourceVersion() && !namesVersion(patch) {
		acc.SetResourceVersion("")
	}
	return obj, nil
}

// namesVersion says whether a patch sets metadata.resourceVersion itself.
func namesVersion(patch []byte) bool {
	var v struct {
		Metadata struct {
			ResourceVersion *string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	return stdjson.Unmarshal(patch, &v) == nil && v.Metadata.ResourceVersion != nil
}

// appliedObject is what the client of a server-side apply wants.
func (r *call) appliedObject(data []byte, patchType types.PatchType) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	if patchType == types.ApplyCBORPatchType {
		if err := direct.Unmarshal(data, &u.Object); err != nil {
			return nil, badRequest("error decoding CBOR: %v", err)
		}
	} else if err := yaml.Unmarshal(data, &u.Object); err != nil {
		return nil, badRequest("error decoding YAML: %v", err)
	}
	if u.GetKind() == "" || u.GetAPIVersion() == "" {
		return nil, badRequest("failed to get the kind and apiVersion of the applied object: %s", "Object 'Kind' and 'apiVersion' must be set")
	}
	if gvk := u.GroupVersionKind(); gvk != r.row.GVK() {
		return nil, badRequest("PATCH requests may not be used with a %s in version %q: expected %s", gvk.Kind, gvk.GroupVersion(), r.row.GVK())
	}
	if u.GetManagedFields() != nil {
		return nil, badRequest("metadata.managedFields must be nil")
	}
	return u, r.checkName(u)
}

// apply merges applied into old by who owns which field.
func (r *call) apply(old runtime.Object, applied *unstructured.Unstructured, opts *metav1.PatchOptions, force bool) (runtime.Object, error) {
	if err := r.checkFields(applied, opts.FieldValidation); err != nil {
		return nil, err
	}
	fields, err := r.s.ownership(r.row, r.info.Subresource)
	if err != nil {
		return nil, err
	}
	var live runtime.Object
	if old == nil {
		if applied.GetUID() != "" || applied.GetResourceVersion() != "" {
			return nil, apierrors.NewConflict(r.groupResource(), r.info.Name,
				errors.New("uid mismatch: the provided object specified uid or resourceVersion, and no existing object was found"))
		}
		live = r.row.New()
	} else {
		live = old.DeepCopyObject()
	}
	live.GetObjectKind().SetGroupVersionKind(r.row.GVK())
	obj, err := fields.Apply(live, applied.DeepCopy(), opts.FieldManager, force)
	if err != nil {
		return nil, err
	}
	if u, ok := obj.(*unstructured.Unstructured); ok && !isUnstructured(r.row) {
		t := r.row.New()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, t); err != nil {
			return nil, err
		}
		obj = t
	}
	if err := r.coerce(obj, r.row.GVK(), metav1.FieldValidationIgnore); err != nil {
		return nil, err
	}
	wholeSeconds(obj)
	if u, ok := obj.(*unstructured.Unstructured); ok {
		objectjson.ShareManagedFields(u.Object)
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	if applied.GetResourceVersion() == "" {
		acc.SetResourceVersion("")
	}
	return obj, nil
}

// checkFields finds fields that the kind does not have.
func (r *call) checkFields(u *unstructured.Unstructured, fieldValidation string) error {
	if isUnstructured(r.row) {
		return r.coerce(u.DeepCopy(), r.row.GVK(), r.fieldValidation(fieldValidation))
	}
	data, err := stdjson.Marshal(u.Object)
	if err != nil {
		return badRequest("%v", err)
	}
	_, err = r.decodeBytes(data, typeJSON, r.row.New(), r.row.GVK(), fieldValidation)
	return err
}
