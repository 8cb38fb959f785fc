package customresource

import (
	"context"
	"fmt"
	"math"
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

// schemas holds the compiled forms of one version's schema, each made when it
// is first needed: most definitions of a large cluster get no requests.
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

// validate checks u; old is nil for a creation. With status, only what is the
// status' own is checked: the rest has been put back to what it was.
func (k *kind) validate(u, old *unstructured.Unstructured, status bool) field.ErrorList {
	structural, err := k.structural()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	ctx := context.Background()
	var options []validation.ValidationOption
	var celOptions []cel.Option
	var was map[string]any
	if old != nil {
		was = old.Object
		root := common.NewCorrelatedObject(u.Object, was, &model.Structural{Structural: structural})
		celOptions = append(celOptions, cel.WithRatcheting(root))
		// What is ratcheted is looked for in the part that is validated.
		part := root
		if status {
			part = root.Key("status")
		}
		if structural != nil {
			options = append(options, validation.WithRatcheting(part))
		}
	}
	var errs field.ErrorList
	if status {
		errs = k.statusBySchema(u.Object, was, options)
		errs = append(errs, validateScaleStatus(u, k.scale)...)
	} else {
		errs = bySchema(k.schemas.validator, k.obeyed, nil, u.Object, was, old != nil, options)
		errs = append(errs, validateScaleSpec(u, k.scale)...)
		errs = append(errs, validateScaleStatus(u, k.scale)...)
		errs = append(errs, schemaobjectmeta.Validate(ctx, nil, u.Object, structural, false)...)
	}
	// What was wrong before may stay wrong.
	if old == nil || len(listtype.ValidateListSetsAndMaps(nil, structural, was)) == 0 {
		errs = append(errs, listtype.ValidateListSetsAndMaps(nil, structural, u.Object)...)
	}
	rules := k.cel()
	if rules == nil {
		return errs
	}
	if blocks(errs) {
		return append(errs, field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"))
	}
	var before any
	if old != nil {
		before = was
	}
	broken, _ := rules.Validate(ctx, nil, structural, u.Object, before, celconfig.RuntimeCELCostBudget, celOptions...)
	return append(errs, broken...)
}

// statusBySchema checks the status, if there is one, by its part of the schema.
func (s *schemas) statusBySchema(u, was map[string]any, options []validation.ValidationOption) field.ErrorList {
	status, ok := u["status"]
	if !ok {
		return nil
	}
	return bySchema(s.status, s.obeyedStatus, field.NewPath("status"), status, was["status"], true, options)
}

// bySchema checks the value now at path, which update says replaces was.
func bySchema(build func() (validation.SchemaValidator, error), obeyed func() valid, path *field.Path, now, was any, update bool, options []validation.ValidationOption) field.ErrorList {
	if obeyed()(now) {
		return nil
	}
	v, err := build()
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	if v == nil {
		return nil
	}
	if !update {
		return validation.ValidateCustomResource(path, now, v, options...)
	}
	return validation.ValidateCustomResourceUpdate(path, now, was, v, options...)
}

// blocks reports whether rules cannot be evaluated on an object with these errors.
func blocks(errs field.ErrorList) bool {
	for _, e := range errs {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}

// validateScaleSpec checks the field that the scale subresource writes.
func validateScaleSpec(u *unstructured.Unstructured, scale *v1.CustomResourceSubresourceScale) field.ErrorList {
	if scale == nil {
		return nil
	}
	return validateReplicas(u, scale.SpecReplicasPath)
}

// validateScaleStatus checks the fields that the scale subresource reads.
func validateScaleStatus(u *unstructured.Unstructured, scale *v1.CustomResourceSubresourceScale) field.ErrorList {
	if scale == nil {
		return nil
	}
	errs := validateReplicas(u, scale.StatusReplicasPath)
	if p := scale.LabelSelectorPath; p != nil && *p != "" {
		if s, _, err := unstructured.NestedString(u.Object, split(*p)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*p), s, err.Error()))
		}
	}
	return errs
}

func validateReplicas(u *unstructured.Unstructured, path string) field.ErrorList {
	n, _, err := unstructured.NestedInt64(u.Object, split(path)...)
	problem := ""
	switch {
	case err != nil:
		problem = err.Error()
	case n < 0:
		problem = "should be a non-negative integer"
	case n > math.MaxInt32:
		problem = fmt.Sprintf("should be less than or equal to %v", math.MaxInt32)
	default:
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath(path), n, problem)}
}
