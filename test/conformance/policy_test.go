package conformance

import (
	"context"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/rand"
)

const admission = "admissionregistration.k8s.io"

// policy makes an admission policy of that kind and a binding of it, for the
// test's namespace alone.
func (t *T) policy(kind, spec, binding string) {
	t.Helper()
	name := "conformance-" + rand.String(6)
	resource := strings.ToLower(strings.TrimSuffix(kind, "y")) + "ies"
	for r, u := range map[string]*unstructured.Unstructured{
		resource:                           t.object("{apiVersion: admissionregistration.k8s.io/v1, kind: %s, metadata: {name: %s}, spec: {failurePolicy: Fail, matchConstraints: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}, resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}]}, %s}}", kind, name, t.NS, spec),
		strings.ToLower(kind) + "bindings": t.object("{apiVersion: admissionregistration.k8s.io/v1, kind: %sBinding, metadata: {name: %s}, spec: {policyName: %s%s}}", kind, name, name, binding),
	} {
		client := t.Dynamic.Resource(gvr(admission, "v1", r))
		got[*unstructured.Unstructured](t)(client.Create(t.Context(), u, create))
		t.Cleanup(func() { _ = client.Delete(context.Background(), name, remove) })
	}
}

// refused waits until a deployment with too many replicas is refused with the
// message, and checks that one with few replicas is not.
func (t *T) refused(message string) {
	t.Helper()
	deployments := t.Client.AppsV1().Deployments(t.NS)
	t.until("the policy to hold", func(ctx context.Context) (bool, error) {
		_, err := deployments.Create(ctx, t.deployment("many"+rand.String(5), 2), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return apierrors.IsInvalid(err) && strings.Contains(err.Error(), message), nil
	})
	got[*appsv1.Deployment](t)(deployments.Create(t.Context(), t.deployment("few", 1), create))
}

var _ = It("[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment", func(t *T) {
	t.policy("ValidatingAdmissionPolicy", "validations: [{expression: 'object.spec.replicas < 2', messageExpression: '''too many: '' + string(object.spec.replicas)'}]", ", validationActions: [Deny]")
	t.refused("too many: 2")
})

var _ = It("[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should allow expressions to refer variables.", func(t *T) {
	t.policy("ValidatingAdmissionPolicy", "variables: [{name: replicas, expression: object.spec.replicas}, {name: oddReplicas, expression: 'variables.replicas % 2 == 1'}], validations: [{expression: variables.oddReplicas, message: only odd}]", ", validationActions: [Deny]")
	t.refused("only odd")
})

const matchDeployments = "matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [never]}]}"

var _ = It("[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations", func(t *T) {
	t.operate(operations{gvr: gvr(admission, "v1", "validatingadmissionpolicies"), cluster: true, status: statusCondition, statusOnly: true,
		one: t.template("{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, spec: {" + matchDeployments + ", validations: [{expression: 'true'}]}}")})
})

var _ = It("[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations", func(t *T) {
	t.operate(operations{gvr: gvr(admission, "v1", "validatingadmissionpolicybindings"), cluster: true,
		one: t.template("{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, spec: {policyName: absent, validationActions: [Deny]}}")})
})

var _ = It("[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicy API operations", func(t *T) {
	t.operate(operations{gvr: gvr(admission, "v1", "mutatingadmissionpolicies"), cluster: true,
		one: t.template("{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicy, spec: {" + matchDeployments + ", reinvocationPolicy: Never, mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{}'}}]}}")})
})

var _ = It("[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicyBinding API operations", func(t *T) {
	t.operate(operations{gvr: gvr(admission, "v1", "mutatingadmissionpolicybindings"), cluster: true,
		one: t.template("{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicyBinding, spec: {policyName: absent}}")})
})

// afterDelay returns err, or nil if it is the API server's answer as long as it
// has not read the schemas that policies are applied by.
func afterDelay(err error) error {
	if err != nil && strings.Contains(err.Error(), "There can be a delay") {
		return nil
	}
	return err
}

var _ = It("[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment", func(t *T) {
	t.policy("MutatingAdmissionPolicy", "reinvocationPolicy: IfNeeded, mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{spec: Object.spec{replicas: 1}}'}}]", "")
	t.until("the mutation", func(ctx context.Context) (bool, error) {
		d, err := t.Client.AppsV1().Deployments(t.NS).Create(ctx, t.deployment("d"+rand.String(5), 3), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && *d.Spec.Replicas == 1, afterDelay(err)
	})
})

var _ = It("[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment with annotations", func(t *T) {
	t.policy("MutatingAdmissionPolicy", "reinvocationPolicy: IfNeeded, mutations: [{patchType: JSONPatch, jsonPatch: {expression: '[JSONPatch{op: \"add\", path: \"/metadata/annotations\", value: {\"mutated\": \"yes\"}}]'}}]", "")
	t.until("the mutation", func(ctx context.Context) (bool, error) {
		d, err := t.Client.AppsV1().Deployments(t.NS).Create(ctx, t.deployment("d"+rand.String(5), 1), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && d.Annotations["mutated"] == "yes", afterDelay(err)
	})
})
