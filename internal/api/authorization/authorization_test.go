package authorization

import (
	"testing"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestReviews(t *testing.T) {
	const (
		one = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
		at  = "spec.resourceAttributes."
	)
	about := func(attributes string) string {
		return `{spec: {user: me, resourceAttributes: {` + attributes + `}}}`
	}
	for name, c := range map[string]struct {
		resource, object string
		want             []string
	}{
		"resource":  {"subjectaccessreviews", about(`verb: get, resource: pods`), nil},
		"group":     {"subjectaccessreviews", `{spec: {groups: [g], nonResourceAttributes: {path: /x}}}`, nil},
		"nothing":   {"subjectaccessreviews", `{}`, []string{"spec: Invalid value: null: " + one, `spec.user: Invalid value: "": at least one of user or group must be specified`}},
		"both":      {"subjectaccessreviews", `{spec: {user: me, resourceAttributes: {}, nonResourceAttributes: {path: /x}}}`, []string{`spec: Invalid value: {"path":"/x"}: ` + one}},
		"name":      {"subjectaccessreviews", `{metadata: {name: a}, spec: {user: me, resourceAttributes: {}}}`, []string{`metadata: Invalid value: {"name":"a"}: must be empty`}},
		"selectors": {"subjectaccessreviews", about(`fieldSelector: {rawSelector: a=b}, labelSelector: {requirements: [{key: a, operator: Later, values: [b]}]}`), nil},
		"selectors twice": {"subjectaccessreviews", about(`fieldSelector: {rawSelector: foo, requirements: [{}]}, labelSelector: {rawSelector: foo, requirements: [{key: a, operator: In}]}`), []string{
			at + `fieldSelector.rawSelector: Invalid value: "foo": may not specified at the same time as requirements`,
			at + `fieldSelector.requirements[0].key: Required value: must be specified`,
			at + `labelSelector.rawSelector: Invalid value: "foo": may not specified at the same time as requirements`,
			at + "labelSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"}},
		"selectors of nothing": {"selfsubjectaccessreviews", `{spec: {resourceAttributes: {fieldSelector: {}, labelSelector: {}}}}`, []string{
			at + `fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required`,
			at + `labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required`}},
		"self":             {"selfsubjectaccessreviews", `{spec: {nonResourceAttributes: {path: /x}}}`, nil},
		"self and nothing": {"selfsubjectaccessreviews", `{metadata: {labels: {a: b}}}`, []string{"spec: Invalid value: null: " + one, `metadata: Invalid value: {"labels":{"a":"b"}}: must be empty`}},
		"local":            {"localsubjectaccessreviews", `{metadata: {namespace: ns}, spec: {user: me, resourceAttributes: {namespace: ns}}}`, nil},
		"elsewhere": {"localsubjectaccessreviews", `{metadata: {namespace: ns, name: a}, spec: {user: me, resourceAttributes: {namespace: m}}}`, []string{
			`metadata: Invalid value: {"name":"a","namespace":"ns"}: must be empty except for namespace`,
			`spec.resourceAttributes.namespace: Invalid value: "m": must match metadata.namespace`}},
		"local path": {"localsubjectaccessreviews", `{metadata: {namespace: ns}, spec: {user: me, nonResourceAttributes: {path: /x}}}`, []string{
			`spec.nonResourceAttributes: Invalid value: {"path":"/x"}: disallowed on this kind of request`}},
	} {
		t.Run(name, func(t *testing.T) {
			r := rowtest.Find(t, Resources(), c.resource)
			rowtest.Expect(t, r.Validate(rowtest.Object(t, r, c.object)), c.want...)
		})
	}
}
