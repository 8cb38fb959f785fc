package flowcontrol

import (
	"testing"
	"time"

	v1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"keelson.dev/keelson/internal/api/rowtest"
)

func TestValidation(t *testing.T) {
	rule := func(rule string) string {
		return `{metadata: {name: s}, spec: {priorityLevelConfiguration: {name: l}, rules: [` + rule + `]}}`
	}
	const at = `spec.rules[0]`
	for name, c := range map[string]struct {
		resource, object string
		want             []string
	}{
		"schema": {"flowschemas", rule(`{subjects: [{kind: Group, group: {name: g}}], nonResourceRules: [{verbs: ["*"], nonResourceURLs: [/healthz, "/x/*", "/"]}]}`), nil},
		"schema of nothing": {"flowschemas", `{spec: {matchingPrecedence: 1}}`, []string{
			`spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1`,
			`spec.priorityLevelConfiguration.name: Required value: must reference a priority level`}},
		"rule of nothing": {"flowschemas", rule(`{}`), []string{
			at + `.subjects: Required value: subjects must contain at least one value`,
			at + `: Required value: at least one of resourceRules and nonResourceRules has to be non-empty`}},
		"subject of two kinds": {"flowschemas", rule(`{subjects: [{kind: User, group: {name: g}}], resourceRules: [{verbs: [get, "*"], apiGroups: [a], resources: [r], namespaces: [UP]}]}`), []string{
			at + `.subjects[0].user: Required value: user is required when subject kind is 'User'`,
			at + `.subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'`,
			at + `.resourceRules[0].verbs: Invalid value: ["get","*"]: if '*' is present, must not specify other verbs`,
			at + `.resourceRules[0].namespaces[0]: Invalid value: "UP": each member of this list must be '*' or a DNS-1123 label; a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`}},
		"urls": {"flowschemas", rule(`{subjects: [{kind: Group, group: {name: g}}], nonResourceRules: [{verbs: [get], nonResourceURLs: [a, /a//b, "/a*", "/a b"]}]}`), []string{
			at + `.nonResourceRules[0].nonResourceURLs[0]: Invalid value: "a": must start with slash`,
			at + `.nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/a//b": must not contain double slash`,
			at + `.nonResourceRules[0].nonResourceURLs[2]: Invalid value: "/a*": wildcard can only do suffix matching`,
			at + `.nonResourceRules[0].nonResourceURLs[3]: Invalid value: "/a b": must not contain white-space`}},
		"level": {"prioritylevelconfigurations", `{metadata: {name: l}, spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {}}}}}`, nil},
		"level that is exempt": {"prioritylevelconfigurations", `{metadata: {name: l}, spec: {type: Exempt}}`, []string{
			"spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if `name` is 'exempt'"}},
		"method": {"flowschemas", `{spec: {priorityLevelConfiguration: {name: L}, matchingPrecedence: 10001, distinguisherMethod: {type: Odd}}}`, []string{
			`spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000`,
			`spec.distinguisherMethod.type: Unsupported value: {"type":"Odd"}: supported values: "ByNamespace", "ByUser"`,
			`spec.priorityLevelConfiguration.name: Invalid value: "L": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`}},
		"level of no type":     {"prioritylevelconfigurations", `{metadata: {name: l}, spec: {}}`, []string{"spec.type: Required value"}},
		"level without limits": {"prioritylevelconfigurations", `{metadata: {name: l}, spec: {type: Limited, exempt: {}}}`, []string{"spec.limited: Required value", "spec.exempt: Forbidden"}},
		"exempt with limits": {"prioritylevelconfigurations", `{metadata: {name: exempt}, spec: {type: Exempt, exempt: {lendablePercent: -1}, limited: {limitResponse: {type: Reject}}}}`, []string{
			"spec.limited: Forbidden", "spec.exempt.lendablePercent: Invalid value: -1: must be between 0 and 100, inclusive",
			`spec: Invalid value: {"type":"Exempt","limited":{"nominalConcurrencyShares":30,"limitResponse":{"type":"Reject"},"lendablePercent":0},"exempt":{"nominalConcurrencyShares":0,"lendablePercent":-1}}: spec of 'exempt' except the 'spec.exempt' field must equal the fixed value`}},
		"level without queues": {"prioritylevelconfigurations", `{metadata: {name: l}, spec: {type: Limited, limited: {borrowingLimitPercent: -1, nominalConcurrencyShares: -1, limitResponse: {type: Queue}}}}`, []string{
			"spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
			"spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
			"spec.limited.limitResponse.queuing: Required value"}},
		"queues of what rejects": {"prioritylevelconfigurations", `{metadata: {name: l}, spec: {type: Limited, limited: {limitResponse: {type: Reject, queuing: {}}}}}`, []string{"spec.limited.limitResponse.queuing: Forbidden"}},
		"odd answer": {"prioritylevelconfigurations", `{metadata: {name: l}, spec: {type: Limited, limited: {limitResponse: {type: Odd}}}}`, []string{
			`spec.limited.limitResponse.type: Unsupported value: "Odd": supported values: "Queue", "Reject"`}},
		"large hand": {"prioritylevelconfigurations", `{metadata: {name: l}, spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {queues: 128, handSize: 10}}}}}`, []string{
			"spec.limited.limitResponse.queuing.handSize: Invalid value: 10: required entropy bits of deckSize 128 and handSize 10 should not be greater than 60"}},
		"level with wrong queues": {"prioritylevelconfigurations", `{metadata: {name: l}, spec: {type: Limited, limited: {lendablePercent: 101, limitResponse: {type: Queue, queuing: {queues: 4, handSize: 8}}}}}`, []string{
			`spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive`,
			`spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)`}},
	} {
		t.Run(name, func(t *testing.T) {
			r := rowtest.Find(t, Resources(), c.resource)
			rowtest.Expect(t, r.Validate(rowtest.Object(t, r, c.object)), c.want...)
		})
	}
}

// The objects that every cluster has are good by these rules, and fixed.
func TestBootstrapObjects(t *testing.T) {
	schemas, levels := rowtest.Find(t, Resources(), "flowschemas"), rowtest.Find(t, Resources(), "prioritylevelconfigurations")
	check := func(r interface{ GetName() string }, validate func() int) {
		if n := validate(); n > 0 {
			t.Errorf("%s has %d errors", r.GetName(), n)
		}
	}
	for _, s := range append(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas...) {
		check(s, func() int { return len(schemas.Validate(s)) })
	}
	for _, p := range append(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations...) {
		check(p, func() int { return len(levels.Validate(p)) })
	}
	exempt := bootstrap.MandatoryPriorityLevelConfigurationExempt.DeepCopy()
	exempt.Spec.Exempt.NominalConcurrencyShares = new(int32(7))
	rowtest.Expect(t, levels.Validate(runtime.Object(exempt)))
	schema := bootstrap.MandatoryFlowSchemaCatchAll.DeepCopy()
	schema.Spec.MatchingPrecedence--
	if errs := schemas.Validate(schema); len(errs) != 1 || errs[0].Detail != "spec of 'catch-all' must equal the fixed value" {
		t.Errorf("a changed catch-all gives %v", errs)
	}
}

func TestTable(t *testing.T) {
	r := rowtest.Find(t, Resources(), "prioritylevelconfigurations")
	p := rowtest.Object(t, r, `{metadata: {name: l}, spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {}}}}}`).(*v1.PriorityLevelConfiguration)
	cells := r.Cells(p, time.Now())
	for i, want := range []any{"l", "Limited", int64(30), int64(64), int64(8), int64(50)} {
		if cells[i] != want {
			t.Errorf("cell %d is %v, want %v", i, cells[i], want)
		}
	}
}
