package customresource

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	schemaobjectmeta "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
)

// schemas are what one version's schema is compiled to, each when it is first
// needed: most definitions of a big cluster have no requests.
type schemas struct {
	structural func() (*structuralschema.Structural, error)
	validator  func() (validation.SchemaValidator, error)
	status     func() (validation.SchemaValidator, error) // nil where the schema has no status
	cel        func() *cel.Validator
	// obeyed and obeyedStatus say quickly that an object, or its status, obeys the schema.
	obeyed, obeyedStatus func() valid
	preserve             bool // spec.preserveUnknownFields
}

func compile(crd *v1.CustomResourceDefinition, v *v1.CustomResourceDefinitionVersion) *schemas {
	internal := sync.OnceValues(func() (*apiextensions.JSONSchemaProps, error) {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			return nil, nil
		}
		out := &apiextensions.JSONSchemaProps{}
		return out, v1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema.DeepCopy(), out, nil)
	})
	s := &schemas{preserve: crd.Spec.PreserveUnknownFields}
	s.structural = sync.OnceValues(func() (*structuralschema.Structural, error) {
		props, err := internal()
		if props == nil || err != nil {
			return nil, err
		}
		out, err := structuralschema.NewStructural(props)
		if err != nil {
			return nil, err
		}
		return out, defaulting.PruneDefaults(out)
	})
	validator := func(props *apiextensions.JSONSchemaProps) (validation.SchemaValidator, error) {
		out, _, err := validation.NewSchemaValidator(props)
		return out, err
	}
	s.validator = sync.OnceValues(func() (validation.SchemaValidator, error) {
		props, err := internal()
		if props == nil || err != nil {
			return nil, err
		}
		return validator(props)
	})
	s.status = sync.OnceValues(func() (validation.SchemaValidator, error) {
		props, err := internal()
		if props == nil || err != nil {
			return nil, err
		}
		status, ok := props.Properties["status"]
		if !ok {
			return nil, nil
		}
		return validator(&status)
	})
	checked := func(f func(*structuralschema.Structural) *structuralschema.Structural) func() valid {
		return sync.OnceValue(func() valid {
			structural, err := s.structural()
			if err != nil || structural == nil {
				return unsure
			}
			return quick(f(structural))
		})
	}
	s.obeyed = checked(func(all *structuralschema.Structural) *structuralschema.Structural { return all })
	s.obeyedStatus = checked(func(all *structuralschema.Structural) *structuralschema.Structural {
		if status, ok := all.Properties["status"]; ok {
			return &status
		}
		return nil
	})
	s.cel = sync.OnceValue(func() *cel.Validator {
		structural, err := s.structural()
		if structural == nil || err != nil {
			return nil
		}
		return cel.NewValidator(structural, true, celconfig.PerCallLimit)
	})
	return s
}

// coerce does to u what decoding into a Go type does to other kinds: it checks
// the metadata's form and drops the fields that the schema does not have, whose
// paths it gives.
func (s *schemas) coerce(u *unstructured.Unstructured) ([]string, error) {
	structural, err := s.structural()
	if err != nil {
		return nil, err
	}
	kind, apiVersion := u.GetKind(), u.GetAPIVersion()
	var meta *metav1.ObjectMeta
	var unknown []string
	metadata, isMap := u.Object["metadata"].(map[string]any)
	hasMeta := !isMap || !plain(metadata)
	if hasMeta {
		meta, hasMeta, unknown, err = schemaobjectmeta.GetObjectMetaWithOptions(u.Object, schemaobjectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
		if err != nil {
			return nil, err
		}
	}
	if !s.preserve {
		unknown = append(unknown, pruning.PruneWithOptions(u.Object, structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})...)
		defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, structural)
	}
	ferr, paths := schemaobjectmeta.CoerceWithOptions(nil, u.Object, structural, false, schemaobjectmeta.CoerceOptions{ReturnUnknownFieldPaths: true})
	if ferr != nil {
		return nil, ferr
	}
	u.SetKind(kind)
	u.SetAPIVersion(apiVersion)
	if hasMeta {
		if err := schemaobjectmeta.SetObjectMeta(u.Object, meta); err != nil {
			return nil, err
		}
	}
	return append(unknown, paths...), nil
}

// setDefaults fills in what the schema gives defaults for.
func (s *schemas) setDefaults(u *unstructured.Unstructured) {
	if structural, err := s.structural(); err == nil && structural != nil {
		defaulting.Default(u.Object, structural)
	}
}

// validate checks u; old is nil for a creation. With status only the status is
// checked by the schema.
func (s *schemas) validate(u, old *unstructured.Unstructured, status bool) field.ErrorList {
	structural, err := s.structural()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	ctx := context.Background()
	var options []validation.ValidationOption
	var celOptions []cel.Option
	if old != nil {
		correlated := common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: structural})
		options = append(options, validation.WithRatcheting(correlated))
		celOptions = append(celOptions, cel.WithRatcheting(correlated))
	}
	errs := s.bySchema(u, old, status, options)
	errs = append(errs, schemaobjectmeta.Validate(ctx, nil, u.Object, structural, false)...)
	// What was wrong before may stay wrong.
	if old == nil || len(listtype.ValidateListSetsAndMaps(nil, structural, old.Object)) == 0 {
		errs = append(errs, listtype.ValidateListSetsAndMaps(nil, structural, u.Object)...)
	}
	rules := s.cel()
	if rules == nil {
		return errs
	}
	if blocks(errs) {
		return append(errs, field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"))
	}
	var was any
	if old != nil {
		was = old.Object
	}
	broken, _ := rules.Validate(ctx, nil, structural, u.Object, was, celconfig.RuntimeCELCostBudget, celOptions...)
	return append(errs, broken...)
}

func (s *schemas) bySchema(u, old *unstructured.Unstructured, status bool, options []validation.ValidationOption) field.ErrorList {
	build, obeyed, path := s.validator, s.obeyed, (*field.Path)(nil)
	var now, was any = u.Object, nil
	if old != nil {
		was = old.Object
	}
	if status {
		build, obeyed, path = s.status, s.obeyedStatus, field.NewPath("status")
		now = u.Object["status"]
		if old != nil {
			was = old.Object["status"]
		}
	}
	if obeyed()(now) {
		return nil
	}
	v, err := build()
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	if v == nil || status && now == nil {
		return nil
	}
	if old == nil {
		return validation.ValidateCustomResource(path, now, v, options...)
	}
	return validation.ValidateCustomResourceUpdate(path, now, was, v, options...)
}

// blocks says whether rules cannot be evaluated on an object with these errors.
func blocks(errs field.ErrorList) bool {
	for _, e := range errs {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}

// validateScale checks the fields that the scale subresource shows.
func validateScale(u *unstructured.Unstructured, scale *v1.CustomResourceSubresourceScale) (errs field.ErrorList) {
	for _, f := range []struct{ path, what string }{{scale.SpecReplicasPath, "spec"}, {scale.StatusReplicasPath, "status"}} {
		fields := split(f.path)
		n, ok, err := unstructured.NestedInt64(u.Object, fields...)
		at := field.NewPath(fields[0], fields[1:]...)
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(at, n, err.Error()))
		case !ok:
		case n < 0:
			errs = append(errs, field.Invalid(at, n, "should be a non-negative integer"))
		case n > 1<<31-1:
			errs = append(errs, field.Invalid(at, n, fmt.Sprintf("should be less than or equal to %v", 1<<31-1)))
		}
	}
	if p := scale.LabelSelectorPath; p != nil && *p != "" {
		fields := split(*p)
		if s, _, err := unstructured.NestedString(u.Object, fields...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(fields[0], fields[1:]...), s, err.Error()))
		}
	}
	return errs
}
