package core

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/api/row"
)

func limitRanges() *api.Resource {
	r := api.Resource{ShortNames: []string{"limits"}, Namespaced: true, Columns: []metav1.TableColumnDefinition{row.Name(), row.CreatedAt()}}
	return row.New[v1.LimitRangeList](v1.SchemeGroupVersion, r, row.Kind[*v1.LimitRange]{
		Default:  setDefaultsLimitRange,
		Validate: validateLimitRange,
		Cells: func(l *v1.LimitRange, _ time.Time) []any {
			return []any{l.Name, l.CreationTimestamp.UTC().Format(time.RFC3339)}
		},
	})
}

func setDefaultsLimitRange(l *v1.LimitRange) {
	for i := range l.Spec.Limits {
		it := &l.Spec.Limits[i]
		if it.Type != v1.LimitTypeContainer {
			continue
		}
		fill := func(to *v1.ResourceList, from v1.ResourceList) {
			for k, q := range from {
				if *to == nil {
					*to = v1.ResourceList{}
				}
				if _, ok := (*to)[k]; !ok {
					(*to)[k] = q.DeepCopy()
				}
			}
		}
		fill(&it.Default, it.Max)
		fill(&it.DefaultRequest, it.Default)
		fill(&it.DefaultRequest, it.Min)
	}
}

func validateLimitRange(l *v1.LimitRange) (errs field.ErrorList) {
	seen := map[v1.LimitType]bool{}
	for i := range l.Spec.Limits {
		it, at := &l.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, validateLimitType(it.Type, at.Child("type"))...)
		if seen[it.Type] {
			errs = append(errs, field.Duplicate(at.Child("type"), it.Type))
		}
		seen[it.Type] = true
		name := podspec.ValidateResourceName
		if it.Type == v1.LimitTypePod || it.Type == v1.LimitTypeContainer {
			name = podspec.ValidateContainerResourceName
		}
		lists := []struct {
			field string
			list  v1.ResourceList
		}{{"max", it.Max}, {"min", it.Min}, {"default", it.Default}, {"defaultRequest", it.DefaultRequest}, {"maxLimitRequestRatio", it.MaxLimitRequestRatio}}
		keys := map[v1.ResourceName]bool{}
		for _, l := range lists {
			if it.Type == v1.LimitTypePod && strings.HasPrefix(l.field, "default") {
				if len(l.list) > 0 {
					errs = append(errs, field.Forbidden(at.Child(l.field), "may not be specified when `type` is 'Pod'"))
				}
				continue
			}
			for _, k := range slices.Sorted(maps.Keys(l.list)) {
				errs = append(errs, name(k, at.Child(l.field).Key(string(k)))...)
				keys[k] = true
			}
		}
		if it.Type == v1.LimitTypePersistentVolumeClaim {
			_, low := it.Min[v1.ResourceStorage]
			_, high := it.Max[v1.ResourceStorage]
			if !low && !high {
				errs = append(errs, field.Required(at.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
			}
		}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			errs = append(errs, validateLimit(it, k, at)...)
		}
	}
	return errs
}

func validateLimitType(t v1.LimitType, at *field.Path) field.ErrorList {
	errs := qualifiedName(string(t), at)
	if len(errs) == 0 && !strings.Contains(string(t), "/") && t != v1.LimitTypePod && t != v1.LimitTypeContainer && t != v1.LimitTypePersistentVolumeClaim {
		errs = append(errs, field.Invalid(at, t, "must be a standard limit type or fully qualified"))
	}
	return errs
}

// validateLimit checks that min, default request, default and max of a resource
// are in this order.
func validateLimit(it *v1.LimitRangeItem, k v1.ResourceName, at *field.Path) (errs field.ErrorList) {
	type value struct {
		name string
		list v1.ResourceList
	}
	low, request, limit, high := value{"min value", it.Min}, value{"default request value", it.DefaultRequest}, value{"default value", it.Default}, value{"max value", it.Max}
	limits := limit
	limits.name = "default limit value"
	for _, c := range []struct {
		field         string
		lesser, other value
		shown         v1.ResourceList
	}{
		{"min", low, high, it.Min}, {"defaultRequest", low, request, it.DefaultRequest}, {"defaultRequest", request, high, it.DefaultRequest},
		{"defaultRequest", request, limits, it.DefaultRequest}, {"default", low, limit, it.Min}, {"default", limit, high, it.Max},
	} {
		x, has := c.lesser.list[k]
		y, and := c.other.list[k]
		if has && and && x.Cmp(y) > 0 {
			errs = append(errs, field.Invalid(at.Child(c.field).Key(string(k)), c.shown[k], fmt.Sprintf("%s %s is greater than %s %s", c.lesser.name, x.String(), c.other.name, y.String())))
		}
	}
	if ratio, ok := it.MaxLimitRequestRatio[k]; ok {
		at := at.Child("maxLimitRequestRatio").Key(string(k))
		if ratio.CmpInt64(1) < 0 {
			errs = append(errs, field.Invalid(at, ratio, fmt.Sprintf("ratio %s is less than 1", ratio.String())))
		}
		least, low := it.Min[k]
		most, high := it.Max[k]
		if bound := most.AsApproximateFloat64() / least.AsApproximateFloat64(); low && high && ratio.AsApproximateFloat64() > bound {
			errs = append(errs, field.Invalid(at, ratio, fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), bound)))
		}
	}
	value1, has := it.Default[k]
	value2, and := it.DefaultRequest[k]
	if has && and && !podspec.Overcommits(k) && value1.Cmp(value2) != 0 {
		errs = append(errs, field.Invalid(at.Child("defaultRequest").Key(string(k)), value2, fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", value1.String(), value2.String(), k)))
	}
	return errs
}

func resourceQuotas() *api.Resource {
	r := api.Resource{ShortNames: []string{"quota"}, Namespaced: true}
	r.DeleteReturnsObject = true
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
		row.String("Limit", "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."), row.Age()}
	return row.New[v1.ResourceQuotaList](v1.SchemeGroupVersion, r, row.Kind[*v1.ResourceQuota]{
		Spec:     func(q *v1.ResourceQuota) any { return &q.Spec },
		Status:   func(q *v1.ResourceQuota) any { return &q.Status },
		Validate: func(q *v1.ResourceQuota) field.ErrorList { return validateQuota(&q.Spec) },
		ValidateUpdate: func(q, old *v1.ResourceQuota) field.ErrorList {
			errs := validateQuota(&q.Spec)
			if !sets.New(q.Spec.Scopes...).Equal(sets.New(old.Spec.Scopes...)) {
				errs = append(errs, field.Invalid(field.NewPath("spec", "scopes"), q.Spec.Scopes, apivalidation.FieldImmutableErrorMsg))
			}
			return errs
		},
		ValidateStatusUpdate: func(q, _ *v1.ResourceQuota) field.ErrorList {
			at := field.NewPath("status")
			return append(validateQuotaAmounts(q.Status.Hard, at.Child("hard")), validateQuotaAmounts(q.Status.Used, at.Child("used"))...)
		},
		Cells: func(q *v1.ResourceQuota, now time.Time) []any {
			var requests, limits []string
			names := make([]string, 0, len(q.Status.Hard))
			for k := range q.Status.Hard {
				names = append(names, string(k))
			}
			sort.Strings(names)
			for _, n := range names {
				used, hard := q.Status.Used[v1.ResourceName(n)], q.Status.Hard[v1.ResourceName(n)]
				text := fmt.Sprintf("%s: %s/%s", n, used.String(), hard.String())
				if strings.HasPrefix(n, "limits.") {
					limits = append(limits, text)
				} else {
					requests = append(requests, text)
				}
			}
			return []any{q.Name, strings.Join(requests, ", "), strings.Join(limits, ", "), row.Created(q, now)}
		},
	})
}

func validateQuotaAmounts(list v1.ResourceList, at *field.Path) (errs field.ErrorList) {
	for _, k := range slices.Sorted(maps.Keys(list)) {
		errs = append(errs, podspec.ValidateQuotaResourceName(k, at.Key(string(k)))...)
		errs = append(errs, podspec.ValidateQuantity(k, list[k], at.Key(string(k)))...)
	}
	return errs
}

var quotaScopes = []v1.ResourceQuotaScope{v1.ResourceQuotaScopeTerminating, v1.ResourceQuotaScopeNotTerminating, v1.ResourceQuotaScopeBestEffort,
	v1.ResourceQuotaScopeNotBestEffort, v1.ResourceQuotaScopePriorityClass, v1.ResourceQuotaScopeCrossNamespacePodAffinity, v1.ResourceQuotaScopeVolumeAttributesClass}

// scopeFits reports whether the scope can narrow what counts as the resource.
func scopeFits(scope v1.ResourceQuotaScope, k v1.ResourceName) bool {
	compute := []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceLimitsCPU, v1.ResourceLimitsMemory, v1.ResourceRequestsCPU, v1.ResourceRequestsMemory}
	switch scope {
	case v1.ResourceQuotaScopeTerminating, v1.ResourceQuotaScopeNotTerminating, v1.ResourceQuotaScopeNotBestEffort, v1.ResourceQuotaScopePriorityClass, v1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return k == v1.ResourcePods || slices.Contains(compute, k)
	case v1.ResourceQuotaScopeBestEffort:
		return k == v1.ResourcePods
	case v1.ResourceQuotaScopeVolumeAttributesClass:
		return k == v1.ResourcePersistentVolumeClaims || k == v1.ResourceRequestsStorage
	}
	return true
}

func validateQuota(s *v1.ResourceQuotaSpec) field.ErrorList {
	errs := validateQuotaAmounts(s.Hard, field.NewPath("spec", "hard"))
	hard := slices.Sorted(maps.Keys(s.Hard))
	check := func(scope v1.ResourceQuotaScope, unknown, at *field.Path, unknownValue, value any) {
		if !slices.Contains(quotaScopes, scope) {
			errs = append(errs, field.Invalid(unknown, unknownValue, "unsupported scope"))
		}
		for _, k := range hard {
			if podspec.StandardQuotaResource(k) && !scopeFits(scope, k) {
				errs = append(errs, field.Invalid(at, value, "unsupported scope applied to resource"))
			}
		}
	}
	conflict := func(scopes []v1.ResourceQuotaScope, at *field.Path) {
		for _, pair := range [][2]v1.ResourceQuotaScope{{v1.ResourceQuotaScopeBestEffort, v1.ResourceQuotaScopeNotBestEffort}, {v1.ResourceQuotaScopeTerminating, v1.ResourceQuotaScopeNotTerminating}} {
			if slices.Contains(scopes, pair[0]) && slices.Contains(scopes, pair[1]) {
				errs = append(errs, field.Invalid(at, s.Scopes, "conflicting scopes"))
			}
		}
	}
	at := field.NewPath("spec", "scopes")
	for _, scope := range s.Scopes {
		check(scope, at, at, s.Scopes, s.Scopes)
	}
	conflict(s.Scopes, at)
	if s.ScopeSelector == nil {
		return errs
	}
	at = field.NewPath("spec", "scopeSelector", "matchExpressions")
	var scopes []v1.ResourceQuotaScope
	for _, r := range s.ScopeSelector.MatchExpressions {
		scopes = append(scopes, r.ScopeName)
		check(r.ScopeName, at.Child("scopeName"), at, r.ScopeName, s.ScopeSelector)
		switch r.ScopeName {
		case v1.ResourceQuotaScopeBestEffort, v1.ResourceQuotaScopeNotBestEffort, v1.ResourceQuotaScopeTerminating, v1.ResourceQuotaScopeNotTerminating, v1.ResourceQuotaScopeCrossNamespacePodAffinity:
			if r.Operator != v1.ScopeSelectorOpExists {
				errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
			}
		}
		switch r.Operator {
		case v1.ScopeSelectorOpIn, v1.ScopeSelectorOpNotIn:
			if len(r.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
			}
		case v1.ScopeSelectorOpExists, v1.ScopeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				errs = append(errs, field.Invalid(at.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
			}
		default:
			errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator"))
		}
	}
	conflict(scopes, at)
	return errs
}
