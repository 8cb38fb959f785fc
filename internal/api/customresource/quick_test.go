package customresource

import (
	"reflect"
	"testing"

	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	schemaobjectmeta "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/objectjson"
)

// TestQuickCheck compares the quick check with the library's: a value that it
// accepts, the library accepts. It has to accept the values marked with +,
// which are usual ones.
func TestQuickCheck(t *testing.T) {
	for schema, values := range map[string][]string{
		`{type: string}`: {`+"a"`, `1`, `null`, `{}`, `+""`},
		`{type: string, minLength: 2, maxLength: 3}`:                                                 {`"a"`, `+"ab"`, `+"äöü"`, `"äöüß"`},
		`{type: string, pattern: '^a+$'}`:                                                            {`+"aa"`, `"ab"`},
		`{type: string, format: date-time}`:                                                          {`+"2020-01-01T00:00:00Z"`, `"yesterday"`},
		`{type: string, format: ipv4}`:                                                               {`+"10.0.0.1"`, `"10.0.0"`},
		`{type: string, format: unheard-of}`:                                                         {`"a"`},
		`{type: string, enum: [a, b]}`:                                                               {`+"a"`, `"c"`, `1`},
		`{type: string, nullable: true}`:                                                             {`null`, `+"a"`},
		`{type: integer}`:                                                                            {`+1`, `1.5`, `2.0`, `"1"`, `9007199254740993`},
		`{type: integer, format: int32}`:                                                             {`+2147483647`, `2147483648`, `-2147483649`},
		`{type: integer, minimum: 1, maximum: 3}`:                                                    {`0`, `+1`, `+3`, `4`},
		`{type: integer, minimum: 1, exclusiveMinimum: true, maximum: 3}`:                            {`1`, `+2`},
		`{type: number, maximum: 1.5, exclusiveMaximum: true}`:                                       {`1.5`, `+1.25`, `1`},
		`{type: integer, multipleOf: 2}`:                                                             {`2`, `3`},
		`{type: boolean}`:                                                                            {`+true`, `"true"`},
		`{x-kubernetes-int-or-string: true}`:                                                         {`+1`, `+"1"`, `1.5`, `true`},
		`{x-kubernetes-int-or-string: true, maximum: 3}`:                                             {`4`, `2`},
		`{type: array, items: {type: integer}, minItems: 1, maxItems: 2}`:                            {`[]`, `+[1]`, `["a"]`, `[1,2,3]`},
		`{type: object, required: [a], properties: {a: {type: string}}}`:                             {`{}`, `+{"a":"b"}`, `{"a":1}`, `+{"a":"b","c":1}`},
		`{type: object, additionalProperties: {type: integer}, maxProperties: 2}`:                    {`+{"a":1}`, `{"a":"b"}`, `{"a":1,"b":2,"c":3}`},
		`{type: object, properties: {a: {type: string}}, oneOf: [{required: [a]}, {required: [b]}]}`: {`{"a":"x"}`, `{}`},
		`{x-kubernetes-preserve-unknown-fields: true}`:                                               {`+1`, `+{"a":[1]}`},
		`{type: object, x-kubernetes-preserve-unknown-fields: true}`:                                 {`+{"a":[1]}`, `1`},
	} {
		props := &v1.JSONSchemaProps{}
		if err := yaml.UnmarshalStrict([]byte(`{type: object, properties: {v: `+schema+`}}`), props); err != nil {
			t.Fatalf("%s: %v", schema, err)
		}
		crd := &v1.CustomResourceDefinition{}
		s := compile(crd, &v1.CustomResourceDefinitionVersion{Schema: &v1.CustomResourceValidation{OpenAPIV3Schema: props}})
		library, err := s.validator()
		if err != nil {
			t.Fatalf("%s: %v", schema, err)
		}
		for _, value := range values {
			must := value[0] == '+'
			if must {
				value = value[1:]
			}
			object, ok := objectjson.Decode([]byte(`{"v":` + value + `}`))
			if !ok {
				t.Fatal(value)
			}
			obeyed, errs := s.obeyed()(object), validation.ValidateCustomResource(nil, object, library)
			if obeyed && len(errs) > 0 {
				t.Errorf("%s takes %s, the library does not: %v", schema, value, errs.ToAggregate())
			}
			if must && !obeyed {
				t.Errorf("%s: %s is not taken (the library says %v)", schema, value, errs.ToAggregate())
			}
		}
	}
}

// TestPlain compares with a conversion to ObjectMeta and back: plain metadata
// is unchanged by it.
func TestPlain(t *testing.T) {
	for metadata, want := range map[string]bool{
		`{"name":"a"}`: true,
		`{"name":"a","namespace":"b","uid":"c","resourceVersion":"1","generation":2,"creationTimestamp":"2020-01-01T00:00:00Z","labels":{"a":""},"annotations":{"b":"c"},"finalizers":["a/b"]}`: true,
		`{"generateName":"a-","ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"u","controller":true}]}`:                                                                     true,
		`{"name":"a","managedFields":[{"manager":"m","operation":"Update","apiVersion":"v1","time":"2020-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:a":{}}}]}`:                     true,
		`{"name":""}`:                                       false,
		`{"name":1}`:                                        false,
		`{"name":"a","labels":{}}`:                          false,
		`{"name":"a","labels":{"a":1}}`:                     false,
		`{"name":"a","labels":null}`:                        false,
		`{"name":"a","colour":"red"}`:                       false,
		`{"creationTimestamp":null}`:                        false,
		`{"creationTimestamp":"now"}`:                       false,
		`{"generation":0}`:                                  false,
		`{"finalizers":[1]}`:                                false,
		`{"ownerReferences":[{"uid":"u"}]}`:                 false,
		`{"managedFields":[{"fieldsV1":1}]}`:                false,
		`{"creationTimestamp":"2020-01-01T00:00:00+01:00"}`: false,
	} {
		object, ok := objectjson.Decode([]byte(`{"metadata":` + metadata + `}`))
		if !ok {
			t.Fatal(metadata)
		}
		got := plain(object["metadata"].(map[string]any))
		if got != want {
			t.Errorf("%s: %v", metadata, got)
		}
		if !got {
			continue
		}
		meta, _, unknown, err := schemaobjectmeta.GetObjectMetaWithOptions(object, schemaobjectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
		if err != nil || len(unknown) > 0 {
			t.Errorf("%s: %v %v", metadata, unknown, err)
			continue
		}
		before := object["metadata"]
		if err := schemaobjectmeta.SetObjectMeta(object, meta); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(object["metadata"], before) {
			t.Errorf("%s comes back as %v", metadata, object["metadata"])
		}
	}
}
