package admissionregistration

import (
	v1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	defaultTimeout = 10
	defaultPort    = 443
)

func setDefault[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// setWebhookDefaults fills in what the two kinds of webhooks have in common.
func setWebhookDefaults(failure **v1.FailurePolicyType, match **v1.MatchPolicyType, namespaces, objects **metav1.LabelSelector, timeout **int32, client *v1.WebhookClientConfig, rules []v1.RuleWithOperations) {
	setDefault(failure, v1.Fail)
	setDefault(match, v1.Equivalent)
	setDefault(namespaces, metav1.LabelSelector{})
	setDefault(objects, metav1.LabelSelector{})
	setDefault(timeout, defaultTimeout)
	if client.Service != nil {
		setDefault(&client.Service.Port, defaultPort)
	}
	for i := range rules {
		setDefault(&rules[i].Scope, v1.AllScopes)
	}
}

func setMatchDefaults(m *v1.MatchResources) {
	if m == nil {
		return
	}
	setDefault(&m.MatchPolicy, v1.Equivalent)
	setDefault(&m.NamespaceSelector, metav1.LabelSelector{})
	setDefault(&m.ObjectSelector, metav1.LabelSelector{})
	for _, rules := range [][]v1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			setDefault(&rules[i].Scope, v1.AllScopes)
		}
	}
}
