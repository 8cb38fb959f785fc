package definitions

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes/scheme"
	aggregator "k8s.io/kube-aggregator/pkg/generated/openapi"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"keelson.dev/keelson/internal/api/catalogue"
)

// describe fills in what the type of that name and its fields are for, in the words of
// the linked types.
func describe(s *spec.Schema, name string) {
	t, words := types()[name], published()[name]
	if words == nil {
		words = ownWords(name)
	}
	s.Description = words[""]
	if own := wordsOf(t); own != nil {
		s.Description = own[""]
	}
	for field, p := range s.Properties {
		p.Description = words[field]
		if own, ok := wordsFor(t, field); ok {
			p.Description = own
		}
		s.Properties[field] = p
	}
}

// wordsOf returns the descriptions of t, at "", and of its fields.
func wordsOf(t reflect.Type) map[string]string {
	if t == nil {
		return nil
	}
	if d, ok := reflect.New(t).Interface().(interface{ SwaggerDoc() map[string]string }); ok {
		return d.SwaggerDoc()
	}
	return nil
}

// wordsFor describes a field of t, or of a struct that is part of it.
func wordsFor(t reflect.Type, field string) (string, bool) {
	if t == nil || t.Kind() != reflect.Struct {
		return "", false
	}
	if words, ok := wordsOf(t)[field]; ok {
		return words, true
	}
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous {
			if words, ok := wordsFor(f.Type, field); ok {
				return words, true
			}
		}
	}
	return "", false
}

var types = sync.OnceValue(func() map[string]reflect.Type {
	all := map[string]reflect.Type{}
	// The rows' own, and those of subresources.
	roots := slices.Concat(builtin(), slices.Collect(maps.Values(scheme.Scheme.AllKnownTypes())))
	for _, t := range structs(roots) {
		all[util.GetCanonicalTypeName(reflect.New(t).Interface())] = t
	}
	return all
})

// published are the words, as wordsOf gives them, for types that do not say what they are
// for: those of the machinery, whose definitions are published with their packages.
var published = sync.OnceValue(func() map[string]map[string]string {
	all := map[string]map[string]string{}
	for _, of := range []common.GetOpenAPIDefinitions{apiextensions.GetOpenAPIDefinitions, aggregator.GetOpenAPIDefinitions} {
		for name, d := range of(func(string) spec.Ref { return spec.Ref{} }) {
			words := map[string]string{"": d.Schema.Description}
			for field, p := range d.Schema.Properties {
				words[field] = p.Description
			}
			all[name] = words
		}
	}
	return all
})

// Types returns the structs of which the objects of all built-in rows are made, and those
// that go with any.
func Types() []reflect.Type { return structs(builtin()) }

func builtin() []reflect.Type {
	var all []reflect.Type
	for _, v := range []any{corev1.Pod{}, metav1.Status{}, metav1.WatchEvent{}, version.Info{}} {
		all = append(all, reflect.TypeOf(v))
	}
	for _, row := range catalogue.Builtin() {
		all = append(all, reflect.TypeOf(row.New()))
	}
	return all
}

// structs returns the structs of Kubernetes' own that the types consist of.
func structs(types []reflect.Type) []reflect.Type {
	var all []reflect.Type
	seen := map[reflect.Type]bool{}
	var add func(t reflect.Type)
	add = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			add(t.Elem())
		case reflect.Struct:
			if !strings.HasPrefix(t.PkgPath(), "k8s.io/") || seen[t] {
				return
			}
			seen[t] = true
			all = append(all, t)
			for i := range t.NumField() {
				if t.Field(i).IsExported() {
					add(t.Field(i).Type)
				}
			}
		}
	}
	for _, t := range types {
		add(t)
	}
	return all
}
