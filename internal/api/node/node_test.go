package node

import (
	"testing"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestRuntimeClasses(t *testing.T) {
	rowtest.Run(t, Resources()[0], []rowtest.Case{
		{Name: "valid", Object: `{metadata: {name: a}, handler: runc, overhead: {podFixed: {cpu: 1}}, scheduling: {nodeSelector: {a: b}, tolerations: [{key: a}]}}`},
		{Name: "no handler", Object: `{metadata: {name: a}}`, Errors: []string{"handler: Required value"}},
		{Name: "handler", Object: `{metadata: {name: a}, handler: a.b}`, Errors: []string{`handler: Invalid value: "a.b": must not contain dots`}},
		{Name: "overhead", Object: `{metadata: {name: a}, handler: a, overhead: {podFixed: {cpu: "-1"}}}`, Errors: []string{
			`overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0`}},
		{Name: "scheduling", Object: `{metadata: {name: a}, handler: a, scheduling: {nodeSelector: {beta.kubernetes.io/os: a b}, tolerations: [{operator: Exists}, {operator: Exists}]}}`,
			Errors: []string{
				`scheduling.nodeSelector: Invalid value: "a b": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
				`scheduling.tolerations[1]: Duplicate value: {"operator":"Exists"}`},
			Warnings: []string{`scheduling.nodeSelector: deprecated since v1.14; use "kubernetes.io/os" instead`}},
		{Name: "another handler", Object: `{metadata: {name: a}, handler: a}`, Update: `{handler: b}`, Errors: []string{`handler: Invalid value: null: field is immutable`}},
	}...)
}
