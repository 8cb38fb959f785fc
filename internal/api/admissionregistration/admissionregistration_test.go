package admissionregistration

import (
	"strings"
	"testing"

	v1 "k8s.io/api/admissionregistration/v1"

	"keelson.dev/keelson/internal/api/rowtest"
)

const (
	rule  = `{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}`
	hook1 = `name: a.example.com, sideEffects: None, admissionReviewVersions: [v1], rules: [` + rule + `]`
	hook2 = hook1 + `, clientConfig: {service: {namespace: n, name: s, path: /p}}`
)

func TestWebhooks(t *testing.T) {
	for name, c := range map[string]struct {
		hooks string
		want  []string
	}{
		"good": {`{` + hook2 + `, matchConditions: [{name: c, expression: "request.operation == 'CREATE' && object.metadata.name != 'x'"}]}`, nil},
		"bare": {`{name: a}`, []string{
			`webhooks[0].name: Invalid value: "a": should be a domain with at least three segments separated by dots`,
			`webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1`,
			`webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun`,
			`webhooks[0].clientConfig: Required value: exactly one of url or service is required`}},
		"twice": {`{` + hook2 + `}, {` + hook2 + `}`, []string{`webhooks[1].name: Duplicate value: "a.example.com"`}},
		"http": {`{` + hook1 + `, timeoutSeconds: 31, clientConfig: {url: "http://me@h/?q#f"}}`, []string{
			`webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds`,
			`webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]`,
			`webhooks[0].clientConfig.url: Invalid value: "me": user information is not permitted in the URL`,
			`webhooks[0].clientConfig.url: Invalid value: "f": fragments are not permitted in the URL`,
			`webhooks[0].clientConfig.url: Invalid value: "q": query parameters are not permitted in the URL`}},
		"wildcards": {`{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {url: "https://h"}, rules: [{operations: ["*", CREATE], apiGroups: ["*"], apiVersions: ["*"], resources: ["pods/*", pods/status]}]}`, []string{
			`webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if '*' is present, must not specify other operations`,
			`webhooks[0].rules[0].resources[1]: Invalid value: "pods/status": if 'pods/*' is present, must not specify pods/status`}},
	} {
		for _, resource := range []string{"validatingwebhookconfigurations", "mutatingwebhookconfigurations"} {
			t.Run(resource+"/"+name, func(t *testing.T) {
				r := rowtest.Find(t, Resources(), resource)
				rowtest.Expect(t, r.Validate(rowtest.Object(t, r, `{webhooks: [`+c.hooks+`]}`)), c.want...)
			})
		}
	}
}

func TestMatchConditionThatIsNotBool(t *testing.T) {
	r := rowtest.Find(t, Resources(), "validatingwebhookconfigurations")
	rowtest.Expect(t, r.Validate(rowtest.Object(t, r, `{webhooks: [{`+hook2+`, matchConditions: [{name: c, expression: "1 + 1"}]}]}`)),
		`webhooks[0].matchConditions[0].expression: Invalid value: "1 + 1": must evaluate to bool but got int`)
}

func TestWebhookDefaultsAndGeneration(t *testing.T) {
	r := rowtest.Find(t, Resources(), "mutatingwebhookconfigurations")
	c := rowtest.Object(t, r, `{webhooks: [{`+hook2+`}]}`).(*v1.MutatingWebhookConfiguration)
	w := c.Webhooks[0]
	if *w.FailurePolicy != "Fail" || *w.MatchPolicy != "Equivalent" || *w.TimeoutSeconds != 10 || *w.ReinvocationPolicy != "Never" ||
		*w.ClientConfig.Service.Port != 443 || *w.Rules[0].Scope != "*" || w.NamespaceSelector == nil || w.ObjectSelector == nil {
		t.Errorf("the webhook is %+v", w)
	}
	r.PrepareForCreate(c)
	same, other := c.DeepCopy(), c.DeepCopy()
	other.Webhooks[0].TimeoutSeconds = new(int32(1))
	r.PrepareForUpdate(same, c)
	r.PrepareForUpdate(other, c)
	if c.Generation != 1 || same.Generation != 1 || other.Generation != 2 {
		t.Errorf("generations are %d, %d and %d", c.Generation, same.Generation, other.Generation)
	}
}

const match = `matchConstraints: {resourceRules: [` + rule + `]}`

func TestPolicies(t *testing.T) {
	for name, c := range map[string]struct {
		resource, spec string
		want           []string
	}{
		"validating": {"validatingadmissionpolicies", match + `, paramKind: {apiVersion: v1, kind: ConfigMap},
			variables: [{name: wanted, expression: "object.spec.replicas"}],
			validations: [{expression: "variables.wanted < int(params.data.max)", messageExpression: "'at most ' + params.data.max", reason: Forbidden}],
			auditAnnotations: [{key: k, valueExpression: "string(object.metadata.name)"}]`, nil},
		"nothing": {"validatingadmissionpolicies", `{}`, []string{
			`spec.matchConstraints: Required value`,
			`spec.validations: Required value: validations or auditAnnotations must contain at least one item`,
			`spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item`}},
		"variables": {"validatingadmissionpolicies", match + `, validations: [{expression: "true"}], variables: [{name: a-b, expression: "1"}, {name: while, expression: " "}]`, []string{
			`spec.variables[0].name: Invalid value: "a-b": name is not a valid CEL identifier`,
			`spec.variables[1].name: Invalid value: "while": name is not a valid CEL identifier`,
			`spec.variables[1].expression: Required value: expression is not specified`}},
		"messages": {"validatingadmissionpolicies", match + `, validations: [{expression: "true", message: " "}, {expression: "true", message: "a\nb"}, {expression: "true &&\n true"}]`, []string{
			`spec.validations[0].message: Invalid value: " ": message must be non-empty if specified`,
			`spec.validations[1].message: Invalid value: "a\nb": message must not contain line breaks`}},
		"annotations": {"validatingadmissionpolicies", match + `, auditAnnotations: [{key: a, valueExpression: "'b'"}, {key: "a b", valueExpression: " "}]`, []string{
			`spec.auditAnnotations[1].key: Invalid value: "p.example.com/a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			`spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified`}},
		"parameters": {"validatingadmissionpolicies", match + `, paramKind: {apiVersion: example.com/, kind: a b}, validations: [{expression: "true", reason: Unauthorized}]`, []string{
			`spec.paramKind.apiVersion: Invalid value: "example.com/": version must be specified`,
			`spec.paramKind.kind: Invalid value: "a b": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')`,
			`spec.validations[0].reason: Unsupported value: "Unauthorized": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge"`}},
		"mutating": {"mutatingadmissionpolicies", match + `, mutations: [
			{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: Object.metadata.labels{a: 'b'}}}"}},
			{patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]"}}]`, nil},
		"mutating nothing": {"mutatingadmissionpolicies", match + `, mutations: [{patchType: JSONPatch, applyConfiguration: {expression: x}}]`, []string{
			`spec.mutations[0].applyConfiguration: Invalid value: "{applyConfiguration}": must not be specified when patchType is JSONPatch`,
			`spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch`}},
		"binding": {"validatingadmissionpolicybindings", `policyName: p, validationActions: [Deny], paramRef: {name: n, parameterNotFoundAction: Deny}`, nil},
		"binding of nothing": {"validatingadmissionpolicybindings", `paramRef: {}, validationActions: [Deny, Warn, Warn]`, []string{
			`spec.policyName: Required value`,
			`spec.paramRef: Required value: one of name or selector must be specified`,
			`spec.paramRef.parameterNotFoundAction: Required value`,
			`spec.validationActions[2]: Duplicate value: "Warn"`,
			`spec.validationActions: Invalid value: ["Deny","Warn","Warn"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)`}},
		"mutating binding": {"mutatingadmissionpolicybindings", `policyName: p`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := rowtest.Find(t, Resources(), c.resource)
			spec := `{` + c.spec + `}`
			if strings.HasPrefix(c.spec, `{`) {
				spec = c.spec
			}
			rowtest.Expect(t, r.Validate(rowtest.Object(t, r, `{metadata: {name: p.example.com}, spec: `+spec+`}`)), c.want...)
		})
	}
}

func TestExpressionThatDoesNotCompile(t *testing.T) {
	r := rowtest.Find(t, Resources(), "validatingadmissionpolicies")
	errs := r.Validate(rowtest.Object(t, r, `{spec: {`+match+`, validations: [{expression: "unknown > 1"}]}}`))
	if len(errs) != 1 || errs[0].Field != "spec.validations[0].expression" || !strings.Contains(errs[0].Detail, "compilation failed: ") || !strings.Contains(errs[0].Detail, "undeclared reference to 'unknown'") {
		t.Errorf("errors are %v", errs)
	}
}

func TestStoredConfigurations(t *testing.T) {
	const old = `{metadata: {name: c}, webhooks: [{name: a.b.c, sideEffects: Some, admissionReviewVersions: [v2], clientConfig: {url: "https://h"}, matchConditions: [{name: c, expression: bad}]}]}`
	for _, resource := range []string{"validatingwebhookconfigurations", "mutatingwebhookconfigurations"} {
		rowtest.Run(t, rowtest.Find(t, Resources(), resource),
			rowtest.Case{Name: "created", Object: strings.Replace(old, ", matchConditions: [{name: c, expression: bad}]", "", 1), Errors: []string{
				`webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"`,
				`webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1`}},
			rowtest.Case{Name: "updated", Object: old, Update: `{metadata: {labels: {a: b}}}`})
	}
}

func TestPolicyStatus(t *testing.T) {
	rowtest.Run(t, rowtest.Find(t, Resources(), "validatingadmissionpolicies"), rowtest.Case{
		Name: "warnings", Object: `{metadata: {name: p}, spec: {` + match + `, validations: [{expression: "true"}]}}`,
		Status: `{typeChecking: {expressionWarnings: [{fieldRef: "spec.validations[0", warning: w}, {fieldRef: "", warning: ""}]}}`,
		Errors: []string{
			`status.typeChecking.expressionWarnings[0].fieldRef: Invalid value: "spec.validations[0": invalid JSONPath: unterminated array`,
			"status.typeChecking.expressionWarnings[1].fieldRef: Required value", "status.typeChecking.expressionWarnings[1].warning: Required value"},
	})
}
