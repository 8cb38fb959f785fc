package podspec

import (
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	unversionedvalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateAffinity(a *v1.Affinity, at *field.Path) (errs field.ErrorList) {
	if a == nil {
		return nil
	}
	if n := a.NodeAffinity; n != nil {
		at := at.Child("nodeAffinity")
		if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			errs = append(errs, ValidateNodeSelector(r, at.Child("requiredDuringSchedulingIgnoredDuringExecution"))...)
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			t, at := &n.PreferredDuringSchedulingIgnoredDuringExecution[i], at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
			errs = append(errs, validateWeight(t.Weight, at)...)
			// A preference for what no node can have does no harm.
			errs = append(errs, validateNodeTerm(&t.Preference, true, at.Child("preference"))...)
		}
	}
	if p := a.PodAffinity; p != nil {
		errs = append(errs, validatePodTerms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("podAffinity"))...)
	}
	if p := a.PodAntiAffinity; p != nil {
		errs = append(errs, validatePodTerms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("podAntiAffinity"))...)
	}
	return errs
}

func validateWeight(w int32, at *field.Path) field.ErrorList {
	if w <= 0 || w > 100 {
		return field.ErrorList{field.Invalid(at.Child("weight"), w, "must be in the range 1-100")}
	}
	return nil
}

// ValidateNodeSelector checks the node selector of a pod or of a volume.
func ValidateNodeSelector(s *v1.NodeSelector, at *field.Path) (errs field.ErrorList) {
	if len(s.NodeSelectorTerms) == 0 {
		return field.ErrorList{field.Required(at.Child("nodeSelectorTerms"), "must have at least one node selector term")}
	}
	for i := range s.NodeSelectorTerms {
		errs = append(errs, validateNodeTerm(&s.NodeSelectorTerms[i], false, at.Child("nodeSelectorTerms").Index(i))...)
	}
	return errs
}

// validateNodeTerm checks the values as well, unless any is allowed.
func validateNodeTerm(t *v1.NodeSelectorTerm, anyValue bool, at *field.Path) (errs field.ErrorList) {
	for i := range t.MatchExpressions {
		r, at := &t.MatchExpressions[i], at.Child("matchExpressions").Index(i)
		switch r.Operator {
		case v1.NodeSelectorOpIn, v1.NodeSelectorOpNotIn:
			if len(r.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'"))
			}
		case v1.NodeSelectorOpExists, v1.NodeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				errs = append(errs, field.Forbidden(at.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
			}
		case v1.NodeSelectorOpGt, v1.NodeSelectorOpLt:
			if len(r.Values) != 1 {
				errs = append(errs, field.Required(at.Child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'"))
			}
		default:
			errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator"))
		}
		errs = append(errs, unversionedvalidation.ValidateLabelName(r.Key, at.Child("key"))...)
		for j, value := range r.Values {
			if anyValue {
				break
			}
			for _, msg := range validation.IsValidLabelValue(value) {
				errs = append(errs, field.Invalid(at.Child("values").Index(j), value, msg))
			}
		}
	}
	for i := range t.MatchFields {
		r, at := &t.MatchFields[i], at.Child("matchFields").Index(i)
		switch r.Operator {
		case v1.NodeSelectorOpIn, v1.NodeSelectorOpNotIn:
			if len(r.Values) != 1 {
				errs = append(errs, field.Required(at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
			}
		default:
			errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator"))
		}
		if r.Key != "metadata.name" {
			errs = append(errs, field.Invalid(at.Child("key"), r.Key, "not a valid field selector key"))
			continue
		}
		for j, value := range r.Values {
			for _, msg := range apivalidation.NameIsDNSSubdomain(value, false) {
				errs = append(errs, field.Invalid(at.Child("values").Index(j), value, msg))
			}
		}
	}
	return errs
}

func validatePodTerms(required []v1.PodAffinityTerm, preferred []v1.WeightedPodAffinityTerm, at *field.Path) (errs field.ErrorList) {
	for i := range required {
		errs = append(errs, validatePodTerm(&required[i], at.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i))...)
	}
	for i := range preferred {
		at := at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
		errs = append(errs, validateWeight(preferred[i].Weight, at)...)
		errs = append(errs, validatePodTerm(&preferred[i].PodAffinityTerm, at.Child("podAffinityTerm"))...)
	}
	return errs
}

func validatePodTerm(t *v1.PodAffinityTerm, at *field.Path) field.ErrorList {
	opts := unversionedvalidation.LabelSelectorValidationOptions{}
	errs := unversionedvalidation.ValidateLabelSelector(t.LabelSelector, opts, at.Child("labelSelector"))
	errs = append(errs, unversionedvalidation.ValidateLabelSelector(t.NamespaceSelector, opts, at.Child("namespaceSelector"))...)
	for _, ns := range t.Namespaces {
		for _, msg := range apivalidation.ValidateNamespaceName(ns, false) {
			errs = append(errs, field.Invalid(at.Child("namespace"), ns, msg))
		}
	}
	errs = append(errs, validateTermKeys(t, at)...)
	if t.TopologyKey == "" {
		errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, unversionedvalidation.ValidateLabelName(t.TopologyKey, at.Child("topologyKey"))...)
}

// validateTermKeys checks that the keys whose values a term takes from its own
// pod have become part of its selector, which must not name them otherwise.
func validateTermKeys(t *v1.PodAffinityTerm, at *field.Path) (errs field.ErrorList) {
	names := func(keys []string, child string) {
		if len(keys) > 0 && t.LabelSelector == nil {
			errs = append(errs, field.Forbidden(at.Child(child), "must not be specified when labelSelector is not set"))
			return
		}
		for i, key := range keys {
			errs = append(errs, unversionedvalidation.ValidateLabelName(key, at.Child(child).Index(i))...)
		}
	}
	names(t.MatchLabelKeys, "matchLabelKeys")
	names(t.MismatchLabelKeys, "mismatchLabelKeys")
	if t.LabelSelector != nil && len(t.MatchLabelKeys) > 0 {
		selected := sets.KeySet(t.LabelSelector.MatchLabels)
		for _, e := range t.LabelSelector.MatchExpressions {
			if i := slices.Index(t.MatchLabelKeys, e.Key); i >= 0 && selected.Has(e.Key) {
				errs = append(errs, field.Invalid(at.Index(i), e.Key, "exists in both matchLabelKeys and labelSelector"))
			}
			selected.Insert(e.Key)
		}
	}
	for i, key := range t.MatchLabelKeys {
		if slices.Contains(t.MismatchLabelKeys, key) {
			errs = append(errs, field.Invalid(at.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys"))
		}
	}
	return errs
}

// SelectOwnLabels has the pod affinity terms of a new pod select by the values
// of its own labels, where they say so.
func SelectOwnLabels(p *v1.Pod) {
	a := p.Spec.Affinity
	if a == nil {
		return
	}
	term := func(t *v1.PodAffinityTerm) {
		if t.LabelSelector == nil || len(t.MatchLabelKeys)+len(t.MismatchLabelKeys) == 0 {
			return
		}
		add := func(keys []string, op metav1.LabelSelectorOperator) {
			for _, key := range keys {
				if value, ok := p.Labels[key]; ok {
					t.LabelSelector.MatchExpressions = append(t.LabelSelector.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}})
				}
			}
		}
		add(t.MatchLabelKeys, metav1.LabelSelectorOpIn)
		add(t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	}
	terms := func(required []v1.PodAffinityTerm, preferred []v1.WeightedPodAffinityTerm) {
		for i := range required {
			term(&required[i])
		}
		for i := range preferred {
			term(&preferred[i].PodAffinityTerm)
		}
	}
	if a.PodAffinity != nil {
		terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a.PodAntiAffinity != nil {
		terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

var (
	spreadActions = []v1.UnsatisfiableConstraintAction{v1.DoNotSchedule, v1.ScheduleAnyway}
	nodeInclusion = []v1.NodeInclusionPolicy{v1.NodeInclusionPolicyHonor, v1.NodeInclusionPolicyIgnore}
)

func validateSpread(list []v1.TopologySpreadConstraint, at *field.Path) (errs field.ErrorList) {
	for i := range list {
		c, at := &list[i], at.Index(i)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(at.Child("maxSkew"), c.MaxSkew, "must be greater than zero"))
		}
		if c.TopologyKey == "" {
			errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
		}
		errs = append(errs, among(c.WhenUnsatisfiable, spreadActions, at, "whenUnsatisfiable")...)
		if slices.ContainsFunc(list[i+1:], func(o v1.TopologySpreadConstraint) bool {
			return o.TopologyKey == c.TopologyKey && o.WhenUnsatisfiable == c.WhenUnsatisfiable
		}) {
			errs = append(errs, field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable)))
		}
		if m := c.MinDomains; m != nil && *m <= 0 {
			errs = append(errs, field.Invalid(at.Child("minDomains"), *m, "must be greater than zero"))
		}
		if m := c.MinDomains; m != nil && c.WhenUnsatisfiable != v1.DoNotSchedule {
			errs = append(errs, field.Invalid(at.Child("minDomains"), *m, fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", v1.DoNotSchedule, c.WhenUnsatisfiable)))
		}
		if p := c.NodeAffinityPolicy; p != nil {
			errs = append(errs, among(*p, nodeInclusion, at, "nodeAffinityPolicy")...)
		}
		if p := c.NodeTaintsPolicy; p != nil {
			errs = append(errs, among(*p, nodeInclusion, at, "nodeTaintsPolicy")...)
		}
		errs = append(errs, validateMatchKeys(c, at.Child("matchLabelKeys"))...)
		errs = append(errs, unversionedvalidation.ValidateLabelSelector(c.LabelSelector, unversionedvalidation.LabelSelectorValidationOptions{}, at.Child("labelSelector"))...)
	}
	return errs
}

// validateMatchKeys checks the keys whose values a constraint takes from its
// own pod's labels: there must be a selector, and it must not name the same
// keys.
func validateMatchKeys(c *v1.TopologySpreadConstraint, at *field.Path) (errs field.ErrorList) {
	if len(c.MatchLabelKeys) == 0 {
		return nil
	}
	selected := sets.New[string]()
	if c.LabelSelector == nil {
		errs = append(errs, field.Forbidden(at, "must not be specified when labelSelector is not set"))
	} else {
		selected = sets.KeySet(c.LabelSelector.MatchLabels)
		for _, e := range c.LabelSelector.MatchExpressions {
			selected.Insert(e.Key)
		}
	}
	for i, key := range c.MatchLabelKeys {
		errs = append(errs, unversionedvalidation.ValidateLabelName(key, at.Index(i))...)
		if selected.Has(key) {
			errs = append(errs, field.Invalid(at.Index(i), key, "exists in both matchLabelKeys and labelSelector"))
		}
	}
	return errs
}
