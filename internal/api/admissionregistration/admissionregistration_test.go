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
			`spec.validations[1].message: Invalid value: "a\nb": message must not contain line breaks`,
			`spec.validations[2].message: Required value: message must be specified if expression contains line breaks`}},
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
