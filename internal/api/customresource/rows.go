package customresource

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
)

// Convert gives obj, which it may not change, in another version.
type Convert func(obj *unstructured.Unstructured, to schema.GroupVersion) (runtime.Object, error)

// SameInAll converts between versions that differ in nothing but the name:
// strategy None.
func SameInAll(obj *unstructured.Unstructured, to schema.GroupVersion) (runtime.Object, error) {
	c := make(map[string]any, len(obj.Object))
	for key, value := range obj.Object {
		c[key] = value
	}
	c["apiVersion"] = to.String()
	return &unstructured.Unstructured{Object: c}, nil
}

// Rows returns a row for each version that the definition serves.
func Rows(crd *v1.CustomResourceDefinition, convert Convert) []*api.Resource {
	storage := schema.GroupVersion{Group: crd.Spec.Group}
	for _, v := range crd.Spec.Versions {
		if v.Storage {
			storage.Version = v.Name
		}
	}
	var rows, served []*api.Resource
	for i := range crd.Spec.Versions {
		r := newRow(crd, &crd.Spec.Versions[i], storage, convert)
		rows = append(rows, r)
		if crd.Spec.Versions[i].Served {
			served = append(served, r)
		}
	}
	for _, r := range rows {
		r.Versions = rows
	}
	return served
}

// kind is one version of a custom resource.
type kind struct {
	*schemas
	version *v1.CustomResourceDefinitionVersion
	gvk     schema.GroupVersionKind
	status  bool
	scale   *v1.CustomResourceSubresourceScale
}

func newRow(crd *v1.CustomResourceDefinition, v *v1.CustomResourceDefinitionVersion, storage schema.GroupVersion, convert Convert) *api.Resource {
	convert = unlessThere(convert)
	names := crd.Status.AcceptedNames
	gv := schema.GroupVersion{Group: crd.Spec.Group, Version: v.Name}
	k := &kind{schemas: compile(crd, v), version: v, gvk: gv.WithKind(names.Kind)}
	if s := v.Subresources; s != nil {
		k.status, k.scale = s.Status != nil, s.Scale
	}
	r := &api.Resource{
		GroupVersionResource: gv.WithResource(names.Plural),
		Kind:                 names.Kind,
		Singular:             names.Singular,
		ShortNames:           names.ShortNames,
		Categories:           names.Categories,
		Namespaced:           crd.Spec.Scope == v1.NamespaceScoped,
		New:                  func() runtime.Object { return &unstructured.Unstructured{Object: map[string]any{}} },
		NewList:              func() runtime.Object { return &unstructured.UnstructuredList{Object: map[string]any{}} },
		ListKind:             names.ListKind,
		StoragePrefix:        crd.Spec.Group + "/" + names.Plural,
		Coerce:               func(obj runtime.Object) ([]string, error) { return k.coerce(obj.(*unstructured.Unstructured)) },
		Models:               func() (map[string]*spec.Schema, error) { return models(crd) },
		DocumentV2: func() (*spec.Swagger, error) {
			return builder.BuildOpenAPIV2(crd, v.Name, builder.Options{V2: true, IncludeSelectableFields: true})
		},
		DocumentV3: func() (*spec3.OpenAPI, error) {
			return builder.BuildOpenAPIV3(crd, v.Name, builder.Options{V2: false, IncludeSelectableFields: true})
		},
		DocumentKey: fmt.Sprint(crd.UID, crd.Generation, names),
	}
	r.AnyFinalizer = true
	if v.Deprecated {
		r.Deprecation = fmt.Sprintf("%s %s is deprecated", gv, names.Kind)
		if v.DeprecationWarning != nil {
			r.Deprecation = *v.DeprecationWarning
		}
	}
	if crd.DeletionTimestamp != nil {
		r.Terminating = "create not allowed while custom resource definition is terminating"
	}
	k.strategy(r)
	k.columns(r)
	k.selectable(r)
	// Objects are stored in one version. What is stored may be older than the
	// schema that it is read with, so that defaults have to be filled in.
	if len(crd.Spec.Versions) > 1 || crd.Generation > 1 {
		r.Hub = &api.Hub{
			Resource: storage.WithResource(names.Plural),
			ToHub: func(obj runtime.Object) (runtime.Object, error) {
				return convert(obj.(*unstructured.Unstructured), storage)
			},
			FromHub: func(obj runtime.Object) (runtime.Object, error) {
				there, err := convert(obj.(*unstructured.Unstructured), gv)
				if err != nil {
					return nil, err
				}
				out := there.DeepCopyObject().(*unstructured.Unstructured)
				if _, err := k.coerce(out); err != nil {
					return nil, err
				}
				k.setDefaults(out)
				return out, nil
			},
		}
	}
	return r
}

// unlessThere leaves an object alone that is in the wanted version.
func unlessThere(convert Convert) Convert {
	return func(obj *unstructured.Unstructured, to schema.GroupVersion) (runtime.Object, error) {
		if obj.GetAPIVersion() == to.String() {
			return obj, nil
		}
		return convert(obj, to)
	}
}

func (k *kind) strategy(r *api.Resource) {
	r.RequireResourceVersion = true
	r.Default = func(obj runtime.Object) { k.setDefaults(obj.(*unstructured.Unstructured)) }
	r.PrepareForCreate = func(obj runtime.Object) {
		u := obj.(*unstructured.Unstructured)
		if k.status {
			delete(u.Object, "status")
		}
		u.SetGeneration(1)
	}
	r.Validate = func(obj runtime.Object) field.ErrorList { return k.check(obj, nil, false) }
	r.PrepareForUpdate = func(obj, old runtime.Object) {
		u, was := obj.(*unstructured.Unstructured), old.(*unstructured.Unstructured)
		if k.status {
			keep(u, was, "status")
		}
		advance(u, was)
	}
	r.ValidateUpdate = func(obj, old runtime.Object) field.ErrorList { return k.check(obj, old, false) }
	if k.status {
		r.Status = &api.UpdateStrategy{
			PrepareForUpdate: func(obj, old runtime.Object) {
				u, was := obj.(*unstructured.Unstructured), old.(*unstructured.Unstructured)
				// Everything but the status is as it was; of the metadata, what the
				// server itself keeps may change.
				managed := u.GetManagedFields()
				status, has := u.Object["status"]
				for key := range u.Object {
					delete(u.Object, key)
				}
				for key, value := range was.DeepCopy().Object {
					if key != "status" {
						u.Object[key] = value
					}
				}
				if has {
					u.Object["status"] = status
				}
				u.SetManagedFields(managed)
			},
			ValidateUpdate: func(obj, old runtime.Object) field.ErrorList { return k.check(obj, old, true) },
		}
	}
	if k.scale != nil {
		r.Scale = &api.Scale{
			Path: split(k.scale.SpecReplicasPath),
			Get: func(obj runtime.Object) (spec *int32, status int32, selector string, err error) {
				u := obj.(*unstructured.Unstructured)
				want, ok, err := unstructured.NestedInt64(u.Object, split(k.scale.SpecReplicasPath)...)
				if err != nil {
					return nil, 0, "", err
				}
				if ok {
					spec = ptr.To(int32(want))
				}
				have, _, err := unstructured.NestedInt64(u.Object, split(k.scale.StatusReplicasPath)...)
				if err != nil {
					return nil, 0, "", err
				}
				if p := k.scale.LabelSelectorPath; p != nil && *p != "" {
					if selector, _, err = unstructured.NestedString(u.Object, split(*p)...); err != nil {
						return nil, 0, "", err
					}
				}
				return spec, int32(have), selector, nil
			},
			Set: func(obj runtime.Object, replicas int32) error {
				return unstructured.SetNestedField(obj.(*unstructured.Unstructured).Object, int64(replicas), split(k.scale.SpecReplicasPath)...)
			},
		}
	}
}

func (k *kind) check(obj, old runtime.Object, status bool) field.ErrorList {
	u := obj.(*unstructured.Unstructured)
	was, _ := old.(*unstructured.Unstructured)
	return k.validate(u, was, status)
}

// keep gives u the field that was has.
func keep(u, was *unstructured.Unstructured, name string) {
	if value, ok := was.Object[name]; ok {
		u.Object[name] = value
	} else {
		delete(u.Object, name)
	}
}

// advance counts a change of anything but the metadata.
func advance(u, was *unstructured.Unstructured) {
	rest := func(o map[string]any) map[string]any {
		c := make(map[string]any, len(o))
		for key, value := range o {
			if key != "metadata" {
				c[key] = value
			}
		}
		return c
	}
	u.SetGeneration(was.GetGeneration())
	if !equality.Semantic.DeepEqual(rest(u.Object), rest(was.Object)) {
		u.SetGeneration(was.GetGeneration() + 1)
	}
}

func split(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }

// models describes all versions for server-side apply: the owner of a field in
// one version owns it in the others.
func models(crd *v1.CustomResourceDefinition) (map[string]*spec.Schema, error) {
	all := map[string]*spec.Schema{}
	for i := range crd.Spec.Versions {
		doc, err := builder.BuildOpenAPIV3(crd, crd.Spec.Versions[i].Name, builder.Options{V2: false, StripValueValidation: true, StripNullable: true})
		if err != nil {
			return nil, err
		}
		maps.Copy(all, doc.Components.Schemas)
	}
	return all, nil
}

// columns sets the columns of the definition, else the name and the age.
func (k *kind) columns(r *api.Resource) {
	defined := k.version.AdditionalPrinterColumns
	if len(defined) == 0 {
		defined = []v1.CustomResourceColumnDefinition{{Name: "Age", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"], JSONPath: ".metadata.creationTimestamp"}}
	}
	r.Columns = []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}}
	var cells []cell
	for _, c := range defined {
		description := c.Description
		if description == "" {
			description = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		r.Columns = append(r.Columns, metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: description, Priority: c.Priority})
		cells = append(cells, newCell(c.Type, c.JSONPath))
	}
	r.Cells = func(obj runtime.Object, now time.Time) []any {
		u := obj.(*unstructured.Unstructured)
		out := []any{u.GetName()}
		for _, c := range cells {
			out = append(out, c.value(u.Object, now))
		}
		return out
	}
}

// selectable are the fields that a field selector may name.
func (k *kind) selectable(r *api.Resource) {
	if len(k.version.SelectableFields) == 0 {
		return
	}
	paths := map[string]cell{}
	for _, f := range k.version.SelectableFields {
		name := strings.TrimPrefix(f.JSONPath, ".")
		r.FieldLabels = append(r.FieldLabels, name)
		paths[name] = newCell("", f.JSONPath)
	}
	slices.Sort(r.FieldLabels)
	r.Fields = func(obj runtime.Object) fields.Set {
		set := fields.Set{}
		for name, c := range paths {
			set[name] = ""
			if v := c.find(obj.(*unstructured.Unstructured).Object); v != nil {
				set[name] = fmt.Sprint(v)
			}
		}
		return set
	}
}
