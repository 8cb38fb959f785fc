package definitions

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

//go:generate go run ./generate

// text has a line for each definition: its name, a space, and its schema in JSON,
// whose references are those of OpenAPI v2, without descriptions.
//
//go:embed definitions.txt
var text string

// Where the definitions of a document of OpenAPI v2, and of v3, are in it.
const (
	V2 = "#/definitions/"
	V3 = "#/components/schemas/"
)

var lines = sync.OnceValue(func() map[string]string {
	all := make(map[string]string, strings.Count(text, "\n"))
	for line := range strings.Lines(text) {
		name, schema, _ := strings.Cut(line, " ")
		all[name] = schema
	}
	return all
})

var reference = regexp.MustCompile(`"` + V2 + `([^"]+)"`)

// Of returns the definitions of the types of these names, and of all types that these
// refer to, for a document that has them at place, which is V2 or V3. A name that
// nothing is known of is left out.
func Of(place string, names ...string) (map[string]common.OpenAPIDefinition, error) {
	all := map[string]common.OpenAPIDefinition{}
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		line, known := lines()[name]
		if _, done := all[name]; done || !known {
			continue
		}
		var d common.OpenAPIDefinition
		for _, match := range reference.FindAllStringSubmatch(line, -1) {
			d.Dependencies = append(d.Dependencies, match[1])
		}
		names = append(names, d.Dependencies...)
		if err := json.Unmarshal([]byte(strings.ReplaceAll(line, `"`+V2, `"`+place)), &d.Schema); err != nil {
			return nil, fmt.Errorf("the definition of %s: %w", name, err)
		}
		describe(&d.Schema, name)
		// The builder of documents wants this one as a schema.
		if other, ok := d.Schema.Extensions[common.ExtensionV2Schema]; ok {
			b, err := json.Marshal(other)
			if err != nil {
				return nil, fmt.Errorf("the definition of %s: %w", name, err)
			}
			var v2 spec.Schema
			if err := json.Unmarshal(b, &v2); err != nil {
				return nil, fmt.Errorf("the definition of %s: %w", name, err)
			}
			v2.Description = d.Schema.Description
			d.Schema.Extensions[common.ExtensionV2Schema] = v2
		}
		all[name] = d
	}
	return all, nil
}
