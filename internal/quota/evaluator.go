package quota

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/admission"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/utils/clock"
)

// Lister lists the objects of a resource in a namespace.
type Lister func(resource schema.GroupResource, namespace string) ([]runtime.Object, error)

// evaluator measures one resource.
type evaluator struct {
	resource    schema.GroupResource
	handles     func(admission.Attributes) bool
	matching    func([]v1.ResourceName) []v1.ResourceName
	scope       generic.MatchesScopeFunc
	constraints func(required []v1.ResourceName, obj runtime.Object) error
	usage       generic.UsageFunc
	list        generic.ListFuncByNamespace
}

var _ quota.Evaluator = (*evaluator)(nil)

// Constraints implements quota.Evaluator.
func (e *evaluator) Constraints(required []v1.ResourceName, obj runtime.Object) error {
	if e.constraints == nil {
		return nil
	}
	return e.constraints(required, obj)
}

// GroupResource implements quota.Evaluator.
func (e *evaluator) GroupResource() schema.GroupResource { return e.resource }

// Handles implements quota.Evaluator.
func (e *evaluator) Handles(a admission.Attributes) bool { return e.handles(a) }

// Matches implements quota.Evaluator.
func (e *evaluator) Matches(q *v1.ResourceQuota, obj runtime.Object) (bool, error) {
	return generic.Matches(q, obj, e.matching, e.scope)
}

// MatchingResources implements quota.Evaluator.
func (e *evaluator) MatchingResources(names []v1.ResourceName) []v1.ResourceName {
	return e.matching(names)
}

// MatchingScopes implements quota.Evaluator.
func (e *evaluator) MatchingScopes(obj runtime.Object, scopes []v1.ScopedResourceSelectorRequirement) ([]v1.ScopedResourceSelectorRequirement, error) {
	var out []v1.ScopedResourceSelectorRequirement
	for _, s := range scopes {
		ok, err := e.scope(s, obj)
		if err != nil {
			return nil, fmt.Errorf("error on matching scope %v: %w", s, err)
		}
		if ok {
			out = append(out, s)
		}
	}
	return out, nil
}

// UncoveredQuotaScopes implements quota.Evaluator.
func (*evaluator) UncoveredQuotaScopes(limited, matched []v1.ScopedResourceSelectorRequirement) ([]v1.ScopedResourceSelectorRequirement, error) {
	covered := map[v1.ResourceQuotaScope]bool{}
	for _, s := range matched {
		covered[s.ScopeName] = true
	}
	var out []v1.ScopedResourceSelectorRequirement
	for _, s := range limited {
		if !covered[s.ScopeName] {
			out = append(out, s)
		}
	}
	return out, nil
}

// Usage implements quota.Evaluator.
func (e *evaluator) Usage(obj runtime.Object) (v1.ResourceList, error) { return e.usage(obj) }

// UsageStats implements quota.Evaluator.
func (e *evaluator) UsageStats(o quota.UsageStatsOptions) (quota.UsageStats, error) {
	return generic.CalculateUsageStats(o, e.list, e.scope, e.usage)
}

// Evaluators returns those of the resources that are measured by more than
// their number.
func Evaluators(list Lister, c clock.PassiveClock) []quota.Evaluator {
	return []quota.Evaluator{pods(list, c), services(list), claims(list)}
}

// aliases are the names that a resource's number had before count/.
var aliases = map[schema.GroupResource]v1.ResourceName{
	{Resource: "configmaps"}:             v1.ResourceConfigMaps,
	{Resource: "resourcequotas"}:         v1.ResourceQuotas,
	{Resource: "replicationcontrollers"}: v1.ResourceReplicationControllers,
	{Resource: "secrets"}:                v1.ResourceSecrets,
}

// Count makes an evaluator of a resource's number.
func Count(resource schema.GroupResource, list Lister) quota.Evaluator {
	return generic.NewObjectCountEvaluator(resource, of(list, resource), aliases[resource])
}

// Counted returns the resource whose number a quota's name is about.
func Counted(name v1.ResourceName) (schema.GroupResource, bool) {
	for gr, alias := range aliases {
		if name == alias {
			return gr, true
		}
	}
	const prefix = "count/"
	if len(name) <= len(prefix) || name[:len(prefix)] != prefix {
		return schema.GroupResource{}, false
	}
	return schema.ParseGroupResource(string(name[len(prefix):])), true
}

func of(list Lister, resource schema.GroupResource) generic.ListFuncByNamespace {
	return func(namespace string) ([]runtime.Object, error) { return list(resource, namespace) }
}

func one() resource.Quantity { return *resource.NewQuantity(1, resource.DecimalSI) }

func number(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }

// selects reports whether a scope's requirement is met by the value that an
// object has for the scope; "" is none.
func selects(s v1.ScopedResourceSelectorRequirement, value string) (bool, error) {
	ops := map[v1.ScopeSelectorOperator]selection.Operator{
		v1.ScopeSelectorOpIn: selection.In, v1.ScopeSelectorOpNotIn: selection.NotIn,
		v1.ScopeSelectorOpExists: selection.Exists, v1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist,
	}
	op, ok := ops[s.Operator]
	if !ok {
		return false, fmt.Errorf("%q is not a valid scope selector operator", s.Operator)
	}
	r, err := labels.NewRequirement(string(s.ScopeName), op, s.Values)
	if err != nil {
		return false, fmt.Errorf("failed to parse and convert selector: %w", err)
	}
	set := labels.Set{}
	if value != "" {
		set[string(s.ScopeName)] = value
	}
	return r.Matches(set), nil
}
