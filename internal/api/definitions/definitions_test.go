package definitions

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"keelson.dev/keelson/internal/api/catalogue"
)

// TestDefinitions checks that the definitions are of the types that are linked here,
// field for field, so that they are not those of an older release; and all that they
// refer to is there.
func TestDefinitions(t *testing.T) {
	for name, line := range lines() {
		for _, match := range reference.FindAllStringSubmatch(line, -1) {
			if _, ok := lines()[match[1]]; !ok {
				t.Errorf("%s refers to %s, which there is no definition of", name, match[1])
			}
		}
	}
	seen := map[reflect.Type]bool{}
	var check func(v reflect.Type)
	check = func(v reflect.Type) {
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct || seen[v] || !strings.HasPrefix(v.PkgPath(), "k8s.io/") {
			return
		}
		seen[v] = true
		name := util.GetCanonicalTypeName(reflect.New(v).Interface())
		line, ok := lines()[name]
		if !ok {
			t.Errorf("there is no definition of %s", name)
			return
		}
		var s spec.Schema
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(name, err)
		}
		if len(s.Properties) == 0 { // a form of its own, as a time has
			return
		}
		fields := map[string]bool{}
		var collect func(v reflect.Type)
		collect = func(v reflect.Type) {
			for i := range v.NumField() {
				f := v.Field(i)
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				switch {
				case name == "" && f.Anonymous:
					collect(f.Type)
				case name != "-" && name != "":
					fields[name] = true
					check(f.Type)
				}
			}
		}
		collect(v)
		for field := range fields {
			if _, ok := s.Properties[field]; !ok {
				t.Errorf("the definition of %s lacks %s", name, field)
			}
		}
		if len(s.Properties) != len(fields) {
			t.Errorf("the definition of %s has %d properties, the type %d", name, len(s.Properties), len(fields))
		}
	}
	for _, row := range catalogue.Builtin() {
		for _, make := range []func() runtime.Object{row.New, row.NewList} {
			if make != nil {
				check(reflect.TypeOf(make()))
			}
		}
	}
	if len(seen) < 500 {
		t.Errorf("only %d types were compared", len(seen))
	}
}

// TestOf checks that a definition comes with all that it refers to, as the
// document needs it.
func TestOf(t *testing.T) {
	for _, place := range []string{V2, V3} {
		all, err := Of(place, "io.k8s.api.core.v1.ServicePort", "no.such.Thing")
		if err != nil {
			t.Fatal(err)
		}
		const intOrString = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
		port := all["io.k8s.api.core.v1.ServicePort"]
		target := port.Schema.Properties["targetPort"]
		if ref := target.Ref.String(); len(all) != 2 || ref != place+intOrString || !reflect.DeepEqual(port.Dependencies, []string{intOrString}) {
			t.Errorf("%d definitions, the port refers to %s, %v", len(all), ref, port.Dependencies)
		}
		if v2, ok := all[intOrString].Schema.Extensions["x-kubernetes-v2-schema"].(spec.Schema); !ok || len(v2.OneOf) > 0 || len(all[intOrString].Schema.OneOf) != 2 {
			t.Errorf("%v", all[intOrString].Schema)
		}
	}
}
