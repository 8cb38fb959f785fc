package rbac

import (
	"testing"

	v1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/internal/api/rowtest"
)

func run(t *testing.T, resource string, cases ...rowtest.Case) {
	t.Run(resource, func(t *testing.T) { rowtest.Run(t, rowtest.Find(t, Resources(), resource), cases...) })
}

func TestRoles(t *testing.T) {
	role := func(rules string) string { return `{metadata: {name: "system:r"}, rules: [` + rules + `]}` }
	run(t, "roles",
		rowtest.Case{Name: "rule", Object: role(`{verbs: [get], apiGroups: [""], resources: [pods]}`)},
		rowtest.Case{Name: "rule of nothing", Object: role(`{}`), Errors: []string{
			"rules[0].verbs: Required value",
			"rules[0].apiGroups: Required value: resource rules must supply at least one api group",
			"rules[0].resources: Required value: resource rules must supply at least one resource"}},
		rowtest.Case{Name: "paths", Object: role(`{verbs: [get], nonResourceURLs: [/x], resources: [pods]}`), Errors: []string{
			`rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs`,
			`rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs`}},
		rowtest.Case{Name: "name", Object: `{metadata: {name: a/b}}`, Errors: []string{`metadata.name: Invalid value: "a/b": may not contain '/'`}})
	const selected = `{metadata: {name: r}, aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: a, operator: In, values: ["b c"]}]}]}}`
	const badValue = `a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`
	run(t, "clusterroles",
		rowtest.Case{Name: "paths", Object: role(`{verbs: [get], nonResourceURLs: [/x]}`)},
		rowtest.Case{Name: "aggregation of nothing", Object: `{metadata: {name: r}, aggregationRule: {}}`, Errors: []string{
			"aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"}},
		rowtest.Case{Name: "selector", Object: selected, Errors: []string{
			`aggregationRule.clusterRoleSelectors[0].matchExpressions[0].values[0]: Invalid value: "b c": ` + badValue}},
		rowtest.Case{Name: "selector of old", Object: selected, Update: `{rules: [{verbs: [get], nonResourceURLs: [/x]}]}`})
}

func TestBindings(t *testing.T) {
	binding := func(ref, subjects string) string {
		return `{metadata: {name: b}, roleRef: {` + ref + `}, subjects: [` + subjects + `]}`
	}
	const ref = `kind: ClusterRole, name: r`
	const odd = `{kind: Odd}, {kind: User, apiGroup: x, name: u}, {kind: ServiceAccount, apiGroup: x, name: A}`
	errors := []string{
		`subjects[0].name: Required value`, `subjects[0].kind: Unsupported value: "Odd": supported values: "ServiceAccount", "User", "Group"`,
		`subjects[1].apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io"`,
		`subjects[2].apiGroup: Unsupported value: "x": supported values: ""`,
		`subjects[2].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`}
	run(t, "rolebindings",
		rowtest.Case{Name: "defaults", Object: binding(`kind: Role, name: r`, `{kind: User, name: u}, {kind: ServiceAccount, name: s}`), Check: func(t *testing.T, obj runtime.Object) {
			b := obj.(*v1.RoleBinding)
			if b.RoleRef.APIGroup != v1.GroupName || b.Subjects[0].APIGroup != v1.GroupName || b.Subjects[1].APIGroup != "" {
				t.Errorf("the binding is %+v", b)
			}
		}},
		rowtest.Case{Name: "role of nothing", Object: binding(`kind: Odd, apiGroup: x`, ``), Errors: []string{
			`roleRef.apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io"`,
			`roleRef.kind: Unsupported value: "Odd": supported values: "Role", "ClusterRole"`, `roleRef.name: Required value`}},
		rowtest.Case{Name: "odd subjects", Object: binding(ref, odd), Errors: errors},
		rowtest.Case{Name: "another role", Object: binding(ref, ``), Update: `{roleRef: {name: q}}`, Errors: []string{
			`roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"q"}: cannot change roleRef`}})
	run(t, "clusterrolebindings",
		rowtest.Case{Name: "role", Object: binding(`kind: Role, name: r`, ``), Errors: []string{`roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"`}},
		rowtest.Case{Name: "odd subjects", Object: binding(ref, odd), Errors: append([]string{`subjects[2].namespace: Required value`}, errors...)})
}
