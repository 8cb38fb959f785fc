package podspec

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
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
			errs = append(errs, validateNodeTerm(&t.Preference, at.Child("preference"))...)
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
		errs = append(errs, validateNodeTerm(&s.NodeSelectorTerms[i], at.Child("nodeSelectorTerms").Index(i))...)
	}
	return errs
}

func validateNodeTerm(t *v1.NodeSelectorTerm, at *field.Path) (errs field.ErrorList) {
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
	if t.TopologyKey == "" {
		return append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, unversionedvalidation.ValidateLabelName(t.TopologyKey, at.Child("topologyKey"))...)
}

func validateSpread(list []v1.TopologySpreadConstraint, at *field.Path) (errs field.ErrorList) {
	seen := sets.New[string]()
	for i := range list {
		c, at := &list[i], at.Index(i)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(at.Child("maxSkew"), c.MaxSkew, "must be greater than zero"))
		}
		if c.TopologyKey == "" {
			errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
		}
		errs = append(errs, oneOf(at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, v1.DoNotSchedule, v1.ScheduleAnyway)...)
		pair := fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable)
		if seen.Has(pair) {
			errs = append(errs, field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), pair))
		}
		seen.Insert(pair)
		if m := c.MinDomains; m != nil {
			if *m <= 0 {
				errs = append(errs, field.Invalid(at.Child("minDomains"), *m, "must be greater than zero"))
			}
			if c.WhenUnsatisfiable != v1.DoNotSchedule {
				errs = append(errs, field.Invalid(at.Child("minDomains"), *m, fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", v1.DoNotSchedule, c.WhenUnsatisfiable)))
			}
		}
		for name, p := range map[string]*v1.NodeInclusionPolicy{"nodeAffinityPolicy": c.NodeAffinityPolicy, "nodeTaintsPolicy": c.NodeTaintsPolicy} {
			if p != nil {
				errs = append(errs, oneOf(at.Child(name), *p, v1.NodeInclusionPolicyHonor, v1.NodeInclusionPolicyIgnore)...)
			}
		}
		errs = append(errs, unversionedvalidation.ValidateLabelSelector(c.LabelSelector, unversionedvalidation.LabelSelectorValidationOptions{}, at.Child("labelSelector"))...)
		errs = append(errs, validateMatchKeys(c, at.Child("matchLabelKeys"))...)
	}
	return errs
}

// validateMatchKeys: a constraint takes the values of its own pod's labels, so
// that the selector must be there and not speak of the same keys.
func validateMatchKeys(c *v1.TopologySpreadConstraint, at *field.Path) (errs field.ErrorList) {
	if len(c.MatchLabelKeys) == 0 {
		return nil
	}
	if c.LabelSelector == nil {
		return field.ErrorList{field.Forbidden(at, "must not be specified when labelSelector is not set")}
	}
	selected := sets.New[string]()
	for key := range c.LabelSelector.MatchLabels {
		selected.Insert(key)
	}
	for _, e := range c.LabelSelector.MatchExpressions {
		selected.Insert(e.Key)
	}
	for i, key := range c.MatchLabelKeys {
		errs = append(errs, unversionedvalidation.ValidateLabelName(key, at.Index(i))...)
		if selected.Has(key) {
			errs = append(errs, field.Invalid(at.Index(i), key, "exists in both matchLabelKeys and labelSelector"))
		}
	}
	return errs
}

// Limits of a resolver's configuration.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

func validateDNSConfig(c *v1.PodDNSConfig, at *field.Path) (errs field.ErrorList) {
	if c == nil {
		return nil
	}
	if len(c.Nameservers) > maxNameservers {
		errs = append(errs, field.Invalid(at.Child("nameservers"), c.Nameservers, fmt.Sprintf("must not have more than %v nameservers", maxNameservers)))
	}
	for i, ns := range c.Nameservers {
		errs = append(errs, validation.IsValidIP(at.Child("nameservers").Index(i), ns)...)
	}
	if len(c.Searches) > maxSearches {
		errs = append(errs, field.Invalid(at.Child("searches"), c.Searches, fmt.Sprintf("must not have more than %v search paths", maxSearches)))
	}
	chars := max(0, len(c.Searches)-1)
	for i, search := range c.Searches {
		chars += len(search)
		if n := len(search); n > 0 && search[n-1] == '.' {
			search = search[:n-1]
		}
		errs = append(errs, dnsName(search, validation.IsDNS1123SubdomainWithUnderscore, at.Child("searches").Index(i))...)
	}
	if chars > maxSearchChars {
		errs = append(errs, field.Invalid(at.Child("searches"), c.Searches, fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", maxSearchChars)))
	}
	for i, o := range c.Options {
		if o.Name == "" {
			errs = append(errs, field.Required(at.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}
