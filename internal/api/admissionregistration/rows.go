package admissionregistration

import (
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/admissionregistration/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of admissionregistration.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{
		mutatingPolicies(), mutatingPolicyBindings(), mutatingWebhooks(),
		validatingPolicies(), validatingPolicyBindings(), validatingWebhooks(),
	}
}

// common returns the fields that the rows share.
func common(columns ...metav1.TableColumnDefinition) api.Resource {
	r := api.Resource{Categories: []string{"api-extensions"}, Columns: columns}
	r.RequireResourceVersion = true
	r.ValidateName = validateName
	return r
}

// staticSuffix ends the names of what files alone configure (KEP-5793).
const staticSuffix = ".static.k8s.io"

func validateName(name string, prefix bool) []string {
	msgs := apivalidation.NameIsDNSSubdomain(name, prefix)
	if strings.HasSuffix(name, staticSuffix) {
		msgs = append(msgs, fmt.Sprintf("names ending with %q are reserved for manifest-based admission configurations", staticSuffix))
	}
	return msgs
}

var (
	webhooksColumn  = row.Integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration")
	paramKindColumn = row.String("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy")
	bindingColumns  = []metav1.TableColumnDefinition{
		row.Name(),
		row.String("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
		row.String("ParamRef", "ParamRef indicates the param resource which sets the configration param"), //nolint:misspell // upstream's spelling, which clients see
		row.Age(),
	}
)

func validatingWebhooks() *api.Resource {
	r := common(row.Name(), webhooksColumn, row.Age())
	return row.New[v1.ValidatingWebhookConfigurationList](v1.SchemeGroupVersion, r, row.Kind[*v1.ValidatingWebhookConfiguration]{
		Generation: true,
		Spec:       func(c *v1.ValidatingWebhookConfiguration) any { return &c.Webhooks },
		Default: func(c *v1.ValidatingWebhookConfiguration) {
			for i := range c.Webhooks {
				w := &c.Webhooks[i]
				setWebhookDefaults(&w.FailurePolicy, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector, &w.TimeoutSeconds, &w.ClientConfig, w.Rules)
			}
		},
		Validate: func(c *v1.ValidatingWebhookConfiguration) field.ErrorList {
			return validateWebhooks(validatingHooks(c), nil)
		},
		ValidateUpdate: func(c, old *v1.ValidatingWebhookConfiguration) field.ErrorList {
			return validateWebhooks(validatingHooks(c), validatingHooks(old))
		},
		Cells: func(c *v1.ValidatingWebhookConfiguration, now time.Time) []any {
			return []any{c.Name, int64(len(c.Webhooks)), row.Created(c, now)}
		},
	})
}

func mutatingWebhooks() *api.Resource {
	r := common(row.Name(), webhooksColumn, row.Age())
	return row.New[v1.MutatingWebhookConfigurationList](v1.SchemeGroupVersion, r, row.Kind[*v1.MutatingWebhookConfiguration]{
		Generation: true,
		Spec:       func(c *v1.MutatingWebhookConfiguration) any { return &c.Webhooks },
		Default: func(c *v1.MutatingWebhookConfiguration) {
			for i := range c.Webhooks {
				w := &c.Webhooks[i]
				setWebhookDefaults(&w.FailurePolicy, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector, &w.TimeoutSeconds, &w.ClientConfig, w.Rules)
				setDefault(&w.ReinvocationPolicy, v1.NeverReinvocationPolicy)
			}
		},
		Validate: func(c *v1.MutatingWebhookConfiguration) field.ErrorList {
			return validateWebhooks(mutatingHooks(c), nil)
		},
		ValidateUpdate: func(c, old *v1.MutatingWebhookConfiguration) field.ErrorList {
			return validateWebhooks(mutatingHooks(c), mutatingHooks(old))
		},
		Cells: func(c *v1.MutatingWebhookConfiguration, now time.Time) []any {
			return []any{c.Name, int64(len(c.Webhooks)), row.Created(c, now)}
		},
	})
}

func paramKind(k *v1.ParamKind) string {
	if k == nil {
		return "<unset>"
	}
	return k.APIVersion + "/" + k.Kind
}

// paramRef formats a reference to parameters for the table. Without a namespace
// it has "*": the table does not know whether the parameters have one.
func paramRef(r *v1.ParamRef) string {
	switch {
	case r != nil && r.Name != "" && r.Namespace != "":
		return r.Namespace + "/" + r.Name
	case r != nil && r.Name != "":
		return "*/" + r.Name
	case r != nil && r.Selector != nil:
		return r.Selector.String()
	}
	return "<unset>"
}

func validatingPolicies() *api.Resource {
	r := common(row.Name(), row.Integer("Validations", "Validations indicates the number of validation rules defined in this configuration"), paramKindColumn, row.Age())
	return row.New[v1.ValidatingAdmissionPolicyList](v1.SchemeGroupVersion, r, row.Kind[*v1.ValidatingAdmissionPolicy]{
		Generation: true,
		Spec:       func(p *v1.ValidatingAdmissionPolicy) any { return &p.Spec },
		Status:     func(p *v1.ValidatingAdmissionPolicy) any { return &p.Status },
		Default: func(p *v1.ValidatingAdmissionPolicy) {
			setDefault(&p.Spec.FailurePolicy, v1.Fail)
			setMatchDefaults(p.Spec.MatchConstraints)
		},
		Validate:       func(p *v1.ValidatingAdmissionPolicy) field.ErrorList { return validateValidatingPolicy(p, nil) },
		ValidateUpdate: validateValidatingPolicy,
		StatusOnly:     true,
		ValidateStatusUpdate: func(p, _ *v1.ValidatingAdmissionPolicy) field.ErrorList {
			return validatePolicyStatus(&p.Status, field.NewPath("status"))
		},
		Cells: func(p *v1.ValidatingAdmissionPolicy, now time.Time) []any {
			return []any{p.Name, int64(len(p.Spec.Validations)), paramKind(p.Spec.ParamKind), row.Created(p, now)}
		},
	})
}

func validatingPolicyBindings() *api.Resource {
	r := common(bindingColumns...)
	return row.New[v1.ValidatingAdmissionPolicyBindingList](v1.SchemeGroupVersion, r, row.Kind[*v1.ValidatingAdmissionPolicyBinding]{
		Generation: true,
		Spec:       func(b *v1.ValidatingAdmissionPolicyBinding) any { return &b.Spec },
		Default:    func(b *v1.ValidatingAdmissionPolicyBinding) { setMatchDefaults(b.Spec.MatchResources) },
		Validate:   validateValidatingBinding,
		ValidateUpdate: func(b, _ *v1.ValidatingAdmissionPolicyBinding) field.ErrorList {
			return validateValidatingBinding(b)
		},
		Cells: func(b *v1.ValidatingAdmissionPolicyBinding, now time.Time) []any {
			return []any{b.Name, b.Spec.PolicyName, paramRef(b.Spec.ParamRef), row.Created(b, now)}
		},
	})
}

func mutatingPolicies() *api.Resource {
	r := common(row.Name(), row.Integer("Mutations", "Mutation indicates the number of mutations rules defined in this configuration"), paramKindColumn, row.Age())
	return row.New[v1.MutatingAdmissionPolicyList](v1.SchemeGroupVersion, r, row.Kind[*v1.MutatingAdmissionPolicy]{
		Generation: true,
		Spec:       func(p *v1.MutatingAdmissionPolicy) any { return &p.Spec },
		Default: func(p *v1.MutatingAdmissionPolicy) {
			setDefault(&p.Spec.FailurePolicy, v1.Fail)
			if p.Spec.ReinvocationPolicy == "" {
				p.Spec.ReinvocationPolicy = v1.NeverReinvocationPolicy
			}
			setMatchDefaults(p.Spec.MatchConstraints)
		},
		Validate:       func(p *v1.MutatingAdmissionPolicy) field.ErrorList { return validateMutatingPolicy(p, nil) },
		ValidateUpdate: validateMutatingPolicy,
		Cells: func(p *v1.MutatingAdmissionPolicy, now time.Time) []any {
			return []any{p.Name, int64(len(p.Spec.Mutations)), paramKind(p.Spec.ParamKind), row.Created(p, now)}
		},
	})
}

func mutatingPolicyBindings() *api.Resource {
	r := common(bindingColumns...)
	check := func(b *v1.MutatingAdmissionPolicyBinding) field.ErrorList {
		return validateBinding(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, field.NewPath("spec"))
	}
	return row.New[v1.MutatingAdmissionPolicyBindingList](v1.SchemeGroupVersion, r, row.Kind[*v1.MutatingAdmissionPolicyBinding]{
		Generation:     true,
		Spec:           func(b *v1.MutatingAdmissionPolicyBinding) any { return &b.Spec },
		Default:        func(b *v1.MutatingAdmissionPolicyBinding) { setMatchDefaults(b.Spec.MatchResources) },
		Validate:       check,
		ValidateUpdate: func(b, _ *v1.MutatingAdmissionPolicyBinding) field.ErrorList { return check(b) },
		Cells: func(b *v1.MutatingAdmissionPolicyBinding, now time.Time) []any {
			return []any{b.Name, b.Spec.PolicyName, paramRef(b.Spec.ParamRef), row.Created(b, now)}
		},
	})
}
