package batch

import (
	"fmt"
	"strconv"
	"strings"

	v1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxFailureRules      = 20
	maxExitCodes         = 255
	maxPodConditions     = 20
	maxSuccessRules      = 20
	maxSucceededIndexes  = 64 * 1024
	overlappingSelectors = "specifying both OnExitCodes and OnPodConditions is not supported"
	missingSelector      = "specifying one of OnExitCodes and OnPodConditions is required"
)

var (
	failureActions    = []v1.PodFailurePolicyAction{v1.PodFailurePolicyActionCount, v1.PodFailurePolicyActionFailIndex, v1.PodFailurePolicyActionFailJob, v1.PodFailurePolicyActionIgnore}
	exitCodeOperators = []v1.PodFailurePolicyOnExitCodesOperator{v1.PodFailurePolicyOnExitCodesOpIn, v1.PodFailurePolicyOnExitCodesOpNotIn}
	conditionStatuses = []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
)

// required checks that value is one of the allowed values, and not empty.
func required[T ~string](fldPath *field.Path, value T, allowed ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(fldPath, fmt.Sprintf("valid values: %q", allowed))}
	}
	return oneOf(fldPath, value, allowed...)
}

func validateFailurePolicy(s *v1.JobSpec, fldPath *field.Path) (errs field.ErrorList) {
	rules := fldPath.Child("rules")
	if n := len(s.PodFailurePolicy.Rules); n > maxFailureRules {
		errs = append(errs, field.TooMany(rules, n, maxFailureRules))
	}
	names := sets.New[string]()
	for _, list := range [][]corev1.Container{s.Template.Spec.Containers, s.Template.Spec.InitContainers} {
		for i := range list {
			names.Insert(list[i].Name)
		}
	}
	for i := range s.PodFailurePolicy.Rules {
		r, at := &s.PodFailurePolicy.Rules[i], rules.Index(i)
		if r.Action == v1.PodFailurePolicyActionFailIndex {
			if s.BackoffLimitPerIndex == nil {
				errs = append(errs, field.Invalid(at.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set"))
			}
		} else {
			errs = append(errs, required(at.Child("action"), r.Action, failureActions...)...)
		}
		if r.OnExitCodes != nil {
			errs = append(errs, validateExitCodes(r.OnExitCodes, names, at.Child("onExitCodes"))...)
		}
		errs = append(errs, validatePodConditions(r.OnPodConditions, at.Child("onPodConditions"))...)
		switch codes, conditions := r.OnExitCodes != nil, len(r.OnPodConditions) > 0; {
		case codes && conditions:
			errs = append(errs, field.Invalid(at, field.OmitValueType{}, overlappingSelectors))
		case !codes && !conditions:
			errs = append(errs, field.Invalid(at, field.OmitValueType{}, missingSelector))
		}
	}
	return errs
}

func validateExitCodes(c *v1.PodFailurePolicyOnExitCodesRequirement, names sets.Set[string], fldPath *field.Path) field.ErrorList {
	errs := required(fldPath.Child("operator"), c.Operator, exitCodeOperators...)
	if c.ContainerName != nil && !names.Has(*c.ContainerName) {
		errs = append(errs, field.Invalid(fldPath.Child("containerName"), *c.ContainerName, "must be one of the container or initContainer names in the pod template"))
	}
	values := fldPath.Child("values")
	switch n := len(c.Values); {
	case n == 0:
		errs = append(errs, field.Invalid(values, c.Values, "at least one value is required"))
	case n > maxExitCodes:
		errs = append(errs, field.TooMany(values, n, maxExitCodes))
	}
	seen, ordered := sets.New[int32](), true
	for i, code := range c.Values {
		if code == 0 && c.Operator == v1.PodFailurePolicyOnExitCodesOpIn {
			errs = append(errs, field.Invalid(values.Index(i), code, "must not be 0 for the In operator"))
		}
		if seen.Has(code) {
			errs = append(errs, field.Duplicate(values.Index(i), code))
		}
		seen.Insert(code)
		ordered = ordered && (i == 0 || c.Values[i-1] <= code)
	}
	if !ordered {
		errs = append(errs, field.Invalid(values, c.Values, "must be ordered"))
	}
	return errs
}

func validatePodConditions(list []v1.PodFailurePolicyOnPodConditionsPattern, fldPath *field.Path) (errs field.ErrorList) {
	if len(list) > maxPodConditions {
		errs = append(errs, field.TooMany(fldPath, len(list), maxPodConditions))
	}
	for i, c := range list {
		for _, msg := range validation.IsQualifiedName(string(c.Type)) {
			errs = append(errs, field.Invalid(fldPath.Index(i).Child("type"), string(c.Type), msg))
		}
		errs = append(errs, required(fldPath.Index(i).Child("status"), c.Status, conditionStatuses...)...)
	}
	return errs
}

func validateSuccessPolicy(s *v1.JobSpec, fldPath *field.Path) (errs field.ErrorList) {
	rules := fldPath.Child("rules")
	switch n := len(s.SuccessPolicy.Rules); {
	case n == 0:
		errs = append(errs, field.Required(rules, "at least one rules must be specified when the successPolicy is specified"))
	case n > maxSuccessRules:
		errs = append(errs, field.TooMany(rules, n, maxSuccessRules))
	}
	if s.Completions == nil {
		return errs // which is an error of its own
	}
	for i := range s.SuccessPolicy.Rules {
		errs = append(errs, validateSuccessRule(&s.SuccessPolicy.Rules[i], *s.Completions, rules.Index(i))...)
	}
	return errs
}

func validateSuccessRule(r *v1.SuccessPolicyRule, completions int32, fldPath *field.Path) (errs field.ErrorList) {
	if r.SucceededCount == nil && r.SucceededIndexes == nil {
		errs = append(errs, field.Required(fldPath, "at least one of succeededCount or succeededIndexes must be specified"))
	}
	var total int32
	if r.SucceededIndexes != nil {
		at := fldPath.Child("succeededIndexes")
		if len(*r.SucceededIndexes) > maxSucceededIndexes {
			errs = append(errs, field.TooLong(at, "", maxSucceededIndexes))
		}
		spans, err := parseIndexes(*r.SucceededIndexes, completions)
		if err != nil {
			errs = append(errs, field.Invalid(at, *r.SucceededIndexes, fmt.Sprintf("error parsing succeededIndexes: %s", err)))
		} else {
			total = count(spans)
		}
	}
	if n := r.SucceededCount; n != nil {
		at := fldPath.Child("succeededCount")
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*n), at)...)
		if *n > completions {
			errs = append(errs, field.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions)))
		}
		if r.SucceededIndexes != nil && *n > total {
			errs = append(errs, field.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
		}
	}
	return errs
}

// span is a range of indexes, both ends included.
type span struct{ first, last int32 }

func count(spans []span) (n int32) {
	for _, s := range spans {
		n += s.last - s.first + 1
	}
	return n
}

// parseIndexes reads a list of indexes as "1,3-5", in increasing order and
// below completions.
func parseIndexes(text string, completions int32) ([]span, error) {
	if text == "" {
		return nil, nil
	}
	var out []span
	for item := range strings.SplitSeq(text, ",") {
		s, err := parseSpan(item, completions)
		if err != nil {
			return nil, err
		}
		if n := len(out); n > 0 && out[n-1].last >= s.first {
			return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", out[n-1].last, s.first)
		}
		out = append(out, s)
	}
	return out, nil
}

func parseSpan(text string, completions int32) (span, error) {
	parts := strings.Split(text, "-")
	if len(parts) > 2 {
		return span{}, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", text)
	}
	var ends [2]int32
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil {
			return span{}, fmt.Errorf("cannot convert string to integer for index: %q", part)
		}
		if n >= int(completions) {
			return span{}, fmt.Errorf("too large index: %q", part)
		}
		ends[i] = int32(n)
	}
	if len(parts) == 1 {
		return span{ends[0], ends[0]}, nil
	}
	if ends[0] >= ends[1] {
		return span{}, fmt.Errorf("non-increasing order, previous: %d, current: %d", ends[0], ends[1])
	}
	return span{ends[0], ends[1]}, nil
}

// overlap finds the first index that is in both of two lists of indexes; what
// does not parse is passed over.
func overlap(a, b string, completions int32) (int32, bool) {
	spans := func(text string) (out []span) {
		for item := range strings.SplitSeq(text, ",") {
			if s, err := parseSpan(item, completions); err == nil {
				out = append(out, s)
			}
		}
		return out
	}
	as, bs := spans(a), spans(b)
	for len(as) > 0 && len(bs) > 0 {
		if as[0].first <= bs[0].last && bs[0].first <= as[0].last {
			return max(as[0].first, bs[0].first), true
		}
		if as[0].first <= bs[0].first {
			as = as[1:]
		} else {
			bs = bs[1:]
		}
	}
	return 0, false
}
