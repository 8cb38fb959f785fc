package customresource

import (
	"math"
	"reflect"
	"regexp"
	"slices"
	"unicode/utf8"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
)

// valid reports whether a value certainly obeys a schema. If not, the library's
// validation, which takes many times longer, decides and returns the errors.
type valid func(v any) bool

// unsure leaves the value to the library.
func unsure(any) bool { return false }

// quick makes the check of a schema; nil, for no schema, takes everything.
func quick(s *structuralschema.Structural) valid {
	if s == nil {
		return func(any) bool { return true }
	}
	if s.XIntOrString {
		return quickIntOrString(s.ValueValidation)
	}
	if v := s.ValueValidation; s.XEmbeddedResource || v != nil && (len(v.AllOf) > 0 || len(v.OneOf) > 0 || len(v.AnyOf) > 0 || v.Not != nil || v.MultipleOf != nil || v.UniqueItems) {
		return unsure
	}
	var checks []valid
	switch s.Type {
	case "":
		if v := s.ValueValidation; v != nil && !reflect.DeepEqual(*v, structuralschema.ValueValidation{}) || len(s.Properties) > 0 || s.AdditionalProperties != nil || s.Items != nil {
			return unsure
		}
		return func(v any) bool { return v != nil }
	case "object":
		checks = append(checks, quickObject(s))
	case "array":
		checks = append(checks, quickArray(s))
	case "string":
		checks = append(checks, quickString(s.ValueValidation))
	case "boolean":
		checks = append(checks, func(v any) bool { _, ok := v.(bool); return ok })
	case "integer", "number":
		checks = append(checks, quickNumber(s.Type == "integer", s.ValueValidation))
	default:
		return unsure
	}
	if v := s.ValueValidation; v != nil && len(v.Enum) > 0 {
		var allowed []any
		for _, e := range v.Enum {
			switch e.Object.(type) {
			case string, bool, int64:
				allowed = append(allowed, e.Object)
			}
		}
		checks = append(checks, func(v any) bool {
			switch v.(type) {
			case string, bool, int64:
				return slices.Contains(allowed, v)
			}
			return false
		})
	}
	if len(checks) == 1 {
		return checks[0]
	}
	return func(v any) bool {
		for _, c := range checks {
			if !c(v) {
				return false
			}
		}
		return true
	}
}

// quickIntOrString has no check but that of the two types, which the schema
// spells as anyOf.
func quickIntOrString(v *structuralschema.ValueValidation) valid {
	if v != nil {
		rest := *v
		rest.AnyOf = nil
		if !reflect.DeepEqual(rest, structuralschema.ValueValidation{}) {
			return unsure
		}
	}
	return func(v any) bool {
		switch v.(type) {
		case int64, string:
			return true
		}
		return false
	}
}

// sized reports whether n is within the bounds that are given.
func sized(n int, least, most *int64) bool {
	return (least == nil || int64(n) >= *least) && (most == nil || int64(n) <= *most)
}

func quickObject(s *structuralschema.Structural) valid {
	known := make(map[string]valid, len(s.Properties))
	for name := range s.Properties {
		p := s.Properties[name]
		known[name] = quick(&p)
	}
	// Unknown fields have been pruned, or are preserved: both are allowed.
	others := quick(nil)
	if a := s.AdditionalProperties; a != nil && a.Structural != nil {
		others = quick(a.Structural)
	} else if a != nil && !a.Bool {
		others = unsure
	}
	var required []string
	var least, most *int64
	if v := s.ValueValidation; v != nil {
		required, least, most = v.Required, v.MinProperties, v.MaxProperties
	}
	return func(v any) bool {
		m, ok := v.(map[string]any)
		if !ok || !sized(len(m), least, most) {
			return false
		}
		for _, name := range required {
			if _, ok := m[name]; !ok {
				return false
			}
		}
		for name, value := range m {
			check, ok := known[name]
			if !ok {
				check = others
			}
			if !check(value) {
				return false
			}
		}
		return true
	}
}

func quickArray(s *structuralschema.Structural) valid {
	item := quick(s.Items)
	var least, most *int64
	if v := s.ValueValidation; v != nil {
		least, most = v.MinItems, v.MaxItems
	}
	return func(v any) bool {
		l, ok := v.([]any)
		return ok && sized(len(l), least, most) && !slices.ContainsFunc(l, func(v any) bool { return !item(v) })
	}
}

func quickString(v *structuralschema.ValueValidation) valid {
	if v == nil {
		v = &structuralschema.ValueValidation{}
	}
	var pattern *regexp.Regexp
	if v.Pattern != "" {
		var err error
		if pattern, err = regexp.Compile(v.Pattern); err != nil {
			return unsure
		}
	}
	format, formats := v.Format, strfmt.Default
	if format != "" && !formats.ContainsName(format) {
		return unsure
	}
	least, most := v.MinLength, v.MaxLength
	return func(v any) bool {
		s, ok := v.(string)
		return ok && ((least == nil && most == nil) || sized(utf8.RuneCountInString(s), least, most)) &&
			(pattern == nil || pattern.MatchString(s)) && (format == "" || formats.Validates(format, s))
	}
}

func quickNumber(whole bool, v *structuralschema.ValueValidation) valid {
	if v == nil {
		v = &structuralschema.ValueValidation{}
	}
	if v.Format != "" && v.Format != "int64" && v.Format != "int32" && v.Format != "double" {
		return unsure
	}
	small := v.Format == "int32"
	least, most := math.Inf(-1), math.Inf(1)
	if v.Minimum != nil {
		least = *v.Minimum
	}
	if v.Maximum != nil {
		most = *v.Maximum
	}
	broken := !math.IsInf(least, 0) && least != math.Trunc(least) || !math.IsInf(most, 0) && most != math.Trunc(most)
	above, below := v.ExclusiveMinimum, v.ExclusiveMaximum
	// Beyond this a float64 does not tell neighbours apart.
	const exact = 1 << 53
	return func(v any) bool {
		var f float64
		switch n := v.(type) {
		case int64:
			if n > exact || n < -exact || small && (n > math.MaxInt32 || n < math.MinInt32) {
				return false
			}
			// The library cuts bounds to whole numbers for a whole number.
			if broken {
				return false
			}
			f = float64(n)
		case float64:
			if whole {
				return false
			}
			f = n
		default:
			return false
		}
		return (f > least || !above && f == least) && (f < most || !below && f == most)
	}
}
