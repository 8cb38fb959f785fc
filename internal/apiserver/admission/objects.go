package admission

import (
	"fmt"
	"reflect"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
)

// objects makes, copies, converts and defaults objects for plug-ins that call
// others: webhooks and policies. There are no internal types: an object is of
// the version of its request, or of another one that its row's hub leads to.
type objects struct {
	scheme *runtime.Scheme
	rows   *catalogue.Catalogue
}

// NewObjects returns the plug-ins' view of the catalogue.
func NewObjects(scheme *runtime.Scheme, rows *catalogue.Catalogue) admission.ObjectInterfaces {
	return &objects{scheme, rows}
}

// GetObjectCreater implements admission.ObjectInterfaces.
func (o *objects) GetObjectCreater() runtime.ObjectCreater { return o }

// GetObjectTyper implements admission.ObjectInterfaces.
func (o *objects) GetObjectTyper() runtime.ObjectTyper { return o }

// GetObjectDefaulter implements admission.ObjectInterfaces.
func (o *objects) GetObjectDefaulter() runtime.ObjectDefaulter { return o }

// GetObjectConvertor implements admission.ObjectInterfaces.
func (o *objects) GetObjectConvertor() runtime.ObjectConvertor { return o }

// GetEquivalentResourceMapper implements admission.ObjectInterfaces.
func (o *objects) GetEquivalentResourceMapper() runtime.EquivalentResourceMapper { return o }

// New implements runtime.ObjectCreater.
func (o *objects) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	if o.scheme.Recognizes(kind) {
		return o.scheme.New(kind)
	}
	if row := o.rows.ForKind(kind); row != nil {
		obj := row.New()
		obj.GetObjectKind().SetGroupVersionKind(kind)
		return obj, nil
	}
	return nil, runtime.NewNotRegisteredErrForKind(o.scheme.Name(), kind)
}

// ObjectKinds implements runtime.ObjectTyper.
func (o *objects) ObjectKinds(obj runtime.Object) ([]schema.GroupVersionKind, bool, error) {
	if u, ok := obj.(runtime.Unstructured); ok {
		gvk := u.GetObjectKind().GroupVersionKind()
		if gvk.Kind == "" {
			return nil, false, runtime.NewMissingKindErr("unstructured object has no kind")
		}
		return []schema.GroupVersionKind{gvk}, false, nil
	}
	return o.scheme.ObjectKinds(obj)
}

// Recognizes implements runtime.ObjectTyper.
func (o *objects) Recognizes(gvk schema.GroupVersionKind) bool {
	return o.scheme.Recognizes(gvk) || o.rows.ForKind(gvk) != nil
}

func (o *objects) row(obj runtime.Object) *api.Resource {
	kinds, _, err := o.ObjectKinds(obj)
	if err != nil || len(kinds) == 0 {
		return nil
	}
	return o.rows.ForKind(kinds[0])
}

// Default implements runtime.ObjectDefaulter. What a plug-in has changed is
// brought into its schema's form first: unknown fields go. Of a form that cannot
// be had, validation tells.
func (o *objects) Default(obj runtime.Object) {
	row := o.row(obj)
	if row == nil {
		return
	}
	if row.Coerce != nil {
		_, _ = row.Coerce(obj)
	}
	if row.Default != nil {
		row.Default(obj)
	}
}

// Convert implements runtime.ObjectConvertor: out becomes a copy of in, in
// out's version.
func (o *objects) Convert(in, out, _ any) error {
	src, ok := in.(runtime.Object)
	if !ok {
		return fmt.Errorf("cannot convert %T: it is not an object", in)
	}
	dst, ok := out.(runtime.Object)
	if !ok {
		return fmt.Errorf("cannot convert to %T: it is not an object", out)
	}
	from, to := o.row(src), o.row(dst)
	switch {
	case from == nil || to == nil || from == to:
		return assign(dst, src.DeepCopyObject())
	case from.StoragePrefix != to.StoragePrefix:
		return fmt.Errorf("cannot convert %s to %s: they are different resources", from.GVK(), to.GVK())
	}
	converted, err := o.between(from, to, src)
	if err != nil {
		return err
	}
	return assign(dst, converted)
}

// between converts src from a row's version to another's, through the hub.
func (o *objects) between(from, to *api.Resource, src runtime.Object) (_ runtime.Object, err error) {
	obj := src.DeepCopyObject()
	if from.Hub != nil {
		if obj, err = from.Hub.ToHub(obj); err != nil {
			return nil, err
		}
	}
	if to.Hub != nil {
		if obj, err = to.Hub.FromHub(obj); err != nil {
			return nil, err
		}
	}
	return obj, nil
}

// assign sets *dst to *src, which are of one type.
func assign(dst, src runtime.Object) error {
	if du, ok := dst.(*unstructured.Unstructured); ok {
		if su, ok := src.(*unstructured.Unstructured); ok {
			du.Object = su.Object
			return nil
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(src)
		if err != nil {
			return err
		}
		du.Object = content
		return nil
	}
	if su, ok := src.(*unstructured.Unstructured); ok {
		return runtime.DefaultUnstructuredConverter.FromUnstructured(su.Object, dst)
	}
	d, s := reflect.ValueOf(dst), reflect.ValueOf(src)
	if d.Type() != s.Type() {
		return fmt.Errorf("cannot convert %T to %T", src, dst)
	}
	d.Elem().Set(s.Elem())
	return nil
}

// ConvertToVersion implements runtime.ObjectConvertor.
func (o *objects) ConvertToVersion(in runtime.Object, gv runtime.GroupVersioner) (runtime.Object, error) {
	kinds, _, err := o.ObjectKinds(in)
	if err != nil {
		return nil, err
	}
	kind, ok := gv.KindForGroupVersionKinds(kinds)
	if !ok {
		return nil, runtime.NewNotRegisteredErrForTarget(o.scheme.Name(), reflect.TypeOf(in), gv)
	}
	out, err := o.New(kind)
	if err != nil {
		return nil, err
	}
	if err := o.Convert(in, out, nil); err != nil {
		return nil, err
	}
	out.GetObjectKind().SetGroupVersionKind(kind)
	return out, nil
}

// ConvertFieldLabel implements runtime.ObjectConvertor.
func (o *objects) ConvertFieldLabel(gvk schema.GroupVersionKind, label, value string) (string, string, error) {
	return o.scheme.ConvertFieldLabel(gvk, label, value)
}

// EquivalentResourcesFor implements runtime.EquivalentResourceMapper: those of
// the same stored objects.
func (o *objects) EquivalentResourcesFor(resource schema.GroupVersionResource, subresource string) []schema.GroupVersionResource {
	row := o.rows.Lookup(resource.Group, resource.Version, resource.Resource)
	if row == nil || row.NotStored {
		return []schema.GroupVersionResource{resource}
	}
	// The request's own first, then in the catalogue's order.
	out := []schema.GroupVersionResource{resource}
	for _, r := range o.rows.Rows() {
		if r != row && !r.NotStored && r.StoragePrefix == row.StoragePrefix && !o.KindFor(r.GroupVersionResource, subresource).Empty() {
			out = append(out, r.GroupVersionResource)
		}
	}
	return out
}

// KindFor implements runtime.EquivalentResourceMapper.
func (o *objects) KindFor(resource schema.GroupVersionResource, subresource string) schema.GroupVersionKind {
	row := o.rows.Lookup(resource.Group, resource.Version, resource.Resource)
	if row == nil {
		return schema.GroupVersionKind{}
	}
	switch {
	case subresource == "", subresource == "status" && row.Status != nil, row.Updates[subresource] != nil:
		return row.GVK()
	case subresource == "scale" && row.Scale != nil:
		return autoscalingv1.SchemeGroupVersion.WithKind("Scale")
	}
	for i := range row.Subresources {
		if row.Subresources[i].Name == subresource {
			return row.Subresources[i].Kind
		}
	}
	return schema.GroupVersionKind{}
}

// mapper finds the resources of kinds in the catalogue as it is now.
type mapper struct{ rows *catalogue.Catalogue }

// NewRESTMapper maps the kinds of the catalogue as they come and go.
func NewRESTMapper(rows *catalogue.Catalogue) meta.RESTMapper { return mapper{rows} }

func scopeOf(r *api.Resource) meta.RESTScope {
	if r.Namespaced {
		return meta.RESTScopeNamespace
	}
	return meta.RESTScopeRoot
}

func (m mapper) matching(want schema.GroupVersionResource) (out []*api.Resource) {
	for _, r := range m.rows.Rows() {
		if (r.Resource == want.Resource || r.Singular == want.Resource) &&
			(want.Group == "" && want.Version == "" || r.Group == want.Group) && (want.Version == "" || r.Version == want.Version) {
			out = append(out, r)
		}
	}
	return out
}

// KindFor implements meta.RESTMapper.
func (m mapper) KindFor(r schema.GroupVersionResource) (schema.GroupVersionKind, error) {
	all := m.matching(r)
	if len(all) == 0 {
		return schema.GroupVersionKind{}, &meta.NoResourceMatchError{PartialResource: r}
	}
	return all[0].GVK(), nil
}

// KindsFor implements meta.RESTMapper.
func (m mapper) KindsFor(r schema.GroupVersionResource) (out []schema.GroupVersionKind, _ error) {
	for _, row := range m.matching(r) {
		out = append(out, row.GVK())
	}
	if len(out) == 0 {
		return nil, &meta.NoResourceMatchError{PartialResource: r}
	}
	return out, nil
}

// ResourceFor implements meta.RESTMapper.
func (m mapper) ResourceFor(r schema.GroupVersionResource) (schema.GroupVersionResource, error) {
	all := m.matching(r)
	if len(all) == 0 {
		return r, &meta.NoResourceMatchError{PartialResource: r}
	}
	return all[0].GroupVersionResource, nil
}

// ResourcesFor implements meta.RESTMapper.
func (m mapper) ResourcesFor(r schema.GroupVersionResource) (out []schema.GroupVersionResource, _ error) {
	for _, row := range m.matching(r) {
		out = append(out, row.GroupVersionResource)
	}
	if len(out) == 0 {
		return nil, &meta.NoResourceMatchError{PartialResource: r}
	}
	return out, nil
}

// RESTMapping implements meta.RESTMapper.
func (m mapper) RESTMapping(gk schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	all, err := m.RESTMappings(gk, versions...)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// RESTMappings implements meta.RESTMapper.
func (m mapper) RESTMappings(gk schema.GroupKind, versions ...string) (out []*meta.RESTMapping, _ error) {
	add := func(r *api.Resource) {
		out = append(out, &meta.RESTMapping{Resource: r.GroupVersionResource, GroupVersionKind: r.GVK(), Scope: scopeOf(r)})
	}
	for _, v := range versions {
		if r := m.rows.ForKind(gk.WithVersion(v)); r != nil {
			add(r)
		}
	}
	if len(versions) == 0 {
		for _, r := range m.rows.Rows() {
			if r.Group == gk.Group && r.Kind == gk.Kind {
				add(r)
			}
		}
	}
	if len(out) == 0 {
		return nil, &meta.NoKindMatchError{GroupKind: gk, SearchedVersions: versions}
	}
	return out, nil
}

// ResourceSingularizer implements meta.RESTMapper.
func (m mapper) ResourceSingularizer(resource string) (string, error) {
	for _, r := range m.rows.Rows() {
		if r.Resource == resource {
			return r.Singular, nil
		}
	}
	return resource, fmt.Errorf("no resource %q has been defined", resource)
}
