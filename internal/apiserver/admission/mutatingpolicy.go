package admission

import (
	"context"
	"fmt"
	"io"

	v1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/generic"
	"k8s.io/apiserver/pkg/admission/plugin/policy/matching"
	policymutating "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	policyvalidating "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	celenvironment "k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
)

// newPolicyPlugin makes upstream's plug-in of MutatingAdmissionPolicies, with types as
// the schemas that objects are merged by. Upstream's own are read from the OpenAPI
// documents every few seconds, and until they are known, requests are refused.
func newPolicyPlugin(config io.Reader, types Types) (admission.Interface, error) {
	p, err := policymutating.NewPlugin(config)
	if err != nil {
		return nil, err
	}
	own := generic.NewPlugin(p.Handler,
		func(f informers.SharedInformerFactory, _ kubernetes.Interface, d dynamic.Interface, m meta.RESTMapper) generic.Source[policymutating.PolicyHook] {
			i := f.Admissionregistration().V1()
			return generic.NewPolicySource(i.MutatingAdmissionPolicies().Informer(), i.MutatingAdmissionPolicyBindings().Informer(),
				policymutating.NewMutatingAdmissionPolicyAccessor, policymutating.NewMutatingAdmissionPolicyBindingAccessor, compiled, f, d, m)
		},
		func(a authorizer.UnconditionalAuthorizer, m *matching.Matcher, _ kubernetes.Interface) generic.Dispatcher[policymutating.PolicyHook] {
			return policymutating.NewDispatcher(a, m, types)
		})
	own.SetStaticManifestsDir(p.GetStaticManifestsDir())
	p.Plugin = own
	return p, nil
}

// Types gives the schemas of a kind, by which its objects are merged; nil for one that
// is not served.
type Types func(schema.GroupVersionKind) managedfields.TypeConverter

// GetTypeConverter implements patch.TypeConverterManager.
func (t Types) GetTypeConverter(gvk schema.GroupVersionKind) managedfields.TypeConverter {
	return t(gvk)
}

// Run implements patch.TypeConverterManager: nothing has to be kept up to date.
func (Types) Run(context.Context) {}

var _ patch.TypeConverterManager = Types(nil)

// compiled returns the policy with its expressions compiled, as upstream does it. Errors are
// returned to the requests that match the policy.
func compiled(p *v1.MutatingAdmissionPolicy) policymutating.PolicyEvaluator {
	compiler, err := plugincel.NewCompositedCompiler(celenvironment.MustBaseEnvSet(celenvironment.DefaultCompatibilityVersion()))
	if err != nil {
		return policymutating.PolicyEvaluator{Error: fmt.Errorf("failed to initialize CEL compiler: %w", err)}
	}
	declared := plugincel.OptionalVariableDeclarations{HasParams: p.Spec.ParamKind != nil, HasAuthorizer: true}
	variables := make([]plugincel.NamedExpressionAccessor, len(p.Spec.Variables))
	for i, v := range p.Spec.Variables {
		variables[i] = &policyvalidating.Variable{Name: v.Name, Expression: v.Expression}
	}
	compiler.CompileAndStoreVariables(variables, declared, celenvironment.StoredExpressions)
	out := policymutating.PolicyEvaluator{CompositedCompiler: compiler}
	if len(p.Spec.MatchConditions) > 0 {
		conditions := make([]plugincel.ExpressionAccessor, len(p.Spec.MatchConditions))
		for i := range p.Spec.MatchConditions {
			conditions[i] = (*matchconditions.MatchCondition)(&p.Spec.MatchConditions[i])
		}
		out.Matcher = matchconditions.NewMatcher(compiler.CompileCondition(conditions, declared, celenvironment.StoredExpressions), p.Spec.FailurePolicy, "policy", "validate", p.Name)
	}
	declared.HasPatchTypes = true
	for _, m := range p.Spec.Mutations {
		switch {
		case m.PatchType == v1.PatchTypeJSONPatch && m.JSONPatch != nil:
			out.Mutators = append(out.Mutators, patch.NewJSONPatcher(compiler.CompileMutatingEvaluator(&patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}, declared, celenvironment.StoredExpressions)))
		case m.PatchType == v1.PatchTypeApplyConfiguration && m.ApplyConfiguration != nil:
			out.Mutators = append(out.Mutators, patch.NewApplyConfigurationPatcher(compiler.CompileMutatingEvaluator(&patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}, declared, celenvironment.StoredExpressions)))
		}
	}
	return out
}
