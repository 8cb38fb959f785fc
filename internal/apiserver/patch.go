package apiserver

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"

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
	"k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/objectjson"
)

// patchRetries is upstream's bound for retries of a patch after conflicts.
const patchRetries = 5

// maxPatchOperations bounds a JSON patch, as upstream does.
const maxPatchOperations = 10_000

// maxCopied bounds the sum of a JSON patch's copies in bytes, as upstream does: a
// patch that copies an object into itself a few times fills any memory. It holds for
// the patches of webhooks and policies as well.
const maxCopied = 3 << 20

func init() { jsonpatch.AccumulatedCopySizeLimit = maxCopied }

// patch changes an object by a patch of any of the five kinds.
func (r *writer) patch(strategy *api.UpdateStrategy) error {
	p, err := r.readPatch()
	if err != nil {
		return err
	}
	w := writing{verb: "patch", subresource: r.info.Subresource, options: p.opts, dryRun: isDryRun(p.opts.DryRun), fieldManager: p.opts.FieldManager,
		retries: patchRetries, applied: p.applied, upsert: p.applied && r.info.Subresource == ""}
	e, created, err := r.change(strategy, w, p.produce)
	if err != nil {
		return err
	}
	code := http.StatusOK
	if created {
		code = http.StatusCreated
	}
	return r.writeEntry(code, e)
}

// patch is the patch in a request's body.
type patch struct {
	opts *metav1.PatchOptions
	// applied reports whether it is a server-side apply, which sets the managers too.
	applied bool
	// produce makes the new object of the present one, which is nil for an apply
	// that creates the object.
	produce func(old runtime.Object) (runtime.Object, error)
}

// readPatch reads the request's patch of an object of the row.
func (r *writer) readPatch() (*patch, error) {
	kind, _, err := mime.ParseMediaType(r.req.Header.Get("Content-Type"))
	patchType := types.PatchType(kind)
	kinds := []string{string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyYAMLPatchType), string(types.ApplyCBORPatchType)}
	if isUnstructured(r.row) {
		kinds = []string{kinds[0], kinds[1], kinds[3], kinds[4]}
	}
	if err != nil || !slices.Contains(kinds, kind) {
		return nil, unsupportedMediaType(kinds)
	}
	p := &patch{opts: &metav1.PatchOptions{}}
	if err := r.options(p.opts); err != nil {
		return nil, err
	}
	if err := invalidOptions("PatchOptions", metav1validation.ValidatePatchOptions(p.opts, patchType)); err != nil {
		return nil, err
	}
	data, err := r.body()
	if err != nil {
		return nil, err
	}
	r.auditPatch(data)
	if patchType != types.ApplyYAMLPatchType && patchType != types.ApplyCBORPatchType {
		p.produce = func(old runtime.Object) (runtime.Object, error) {
			return r.patched(old, data, patchType, p.opts.FieldValidation)
		}
		return p, nil
	}
	applied, err := r.application(data, patchType)
	if err != nil {
		return nil, err
	}
	p.applied = true
	p.produce = func(old runtime.Object) (runtime.Object, error) { return r.apply(old, applied, p.opts) }
	return p, nil
}

func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}

// jsonPatchOperation has the members of an operation of a JSON patch (RFC 6902).
type jsonPatchOperation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

// strategicError returns the answer to a strategic merge patch that cannot be
// applied.
func strategicError(err error) error {
	for _, bad := range []error{mergepatch.ErrBadJSONDoc, mergepatch.ErrBadPatchFormatForPrimitiveList, mergepatch.ErrBadPatchFormatForRetainKeys,
		mergepatch.ErrBadPatchFormatForSetElementOrderList, mergepatch.ErrUnsupportedStrategicMergePatchFormat} {
		if errors.Is(err, bad) {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	return unprocessable(err)
}

// patched returns a new object, the result of the patch applied to old.
func (r *writer) patched(old runtime.Object, patch []byte, patchType types.PatchType, fieldValidation string) (runtime.Object, error) {
	before, err := marshalJSON(withGVK(r.row.GVK(), old))
	if err != nil {
		return nil, err
	}
	var after []byte
	var strict []error // unknown and duplicate fields of the patch itself
	switch patchType {
	case types.JSONPatchType:
		var operations []jsonPatchOperation
		if strict, err = kjson.UnmarshalStrict(patch, &operations); err != nil {
			return nil, badRequest("error decoding patch: %v", err)
		}
		for i, e := range strict {
			strict[i] = fmt.Errorf("json patch %w", e)
		}
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
		if strict, err = kjson.UnmarshalStrict(patch, &map[string]any{}); err != nil {
			return nil, badRequest("error decoding patch: %v", err)
		}
		if after, err = jsonpatch.MergePatch(before, patch); err != nil {
			return nil, unprocessable(err)
		}
	case types.StrategicMergePatchType:
		var was, change map[string]any
		if strict, err = kjson.UnmarshalStrict(patch, &change); err != nil {
			return nil, badRequest("error decoding patch: %v", err)
		}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(before, &was); err != nil {
			return nil, err
		}
		is, err := strategicpatch.StrategicMergeMapPatch(was, change, r.row.New())
		if err != nil {
			return nil, strategicError(err)
		}
		if after, err = stdjson.Marshal(is); err != nil {
			return nil, err
		}
	}
	obj, err := r.decodeBytes(after, typeJSON, r.row.New(), r.row.GVK(), fieldValidation, strict...)
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
	// A patch applies to the version that was read, unless it names one itself.
	oldAcc, err := meta.Accessor(old)
	switch {
	case err != nil:
		return nil, err
	case acc.GetResourceVersion() == "" && r.row.RequireResourceVersion:
		return nil, r.noVersion(r.info.Name)
	case acc.GetResourceVersion() == oldAcc.GetResourceVersion() && !namesVersion(patch):
		acc.SetResourceVersion("")
	}
	return obj, nil
}

// namesVersion reports whether a patch sets metadata.resourceVersion.
func namesVersion(patch []byte) bool {
	var v struct {
		Metadata struct {
			ResourceVersion *string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	return stdjson.Unmarshal(patch, &v) == nil && v.Metadata.ResourceVersion != nil
}

// application holds the object of a server-side apply and its options.
type application struct {
	*unstructured.Unstructured
	strict error // duplicate fields
}

// application reads an apply patch. Whole numbers in it stay whole.
func (r *writer) application(data []byte, patchType types.PatchType) (*application, error) {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	a := &application{Unstructured: u}
	if patchType == types.ApplyCBORPatchType {
		// CBOR with duplicate fields is invalid.
		if err := direct.Unmarshal(data, &u.Object); err != nil {
			return nil, badRequest("error decoding patch: %v", err)
		}
	} else {
		if err := boundYAML(data); err != nil {
			return nil, err
		}
		if err := yaml.Unmarshal(data, &u.Object); err != nil {
			return nil, badRequest("error decoding patch: %v", err)
		}
		a.strict = yaml.UnmarshalStrict(data, &map[string]any{})
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
	return a, r.checkName(u)
}

// apply merges applied into old by the owners of the fields.
func (r *writer) apply(old runtime.Object, applied *application, opts *metav1.PatchOptions) (runtime.Object, error) {
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
	obj, err := fields.Apply(live, applied.DeepCopy(), opts.FieldManager, opts.Force != nil && *opts.Force)
	if err != nil {
		return nil, err
	}
	switch mode := r.fieldValidation(opts.FieldValidation); {
	case applied.strict == nil || mode == metav1.FieldValidationIgnore:
	case mode == metav1.FieldValidationStrict:
		return nil, badRequest("error strict decoding patch: %v", applied.strict)
	default:
		r.warnOfFields(applied.strict)
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
