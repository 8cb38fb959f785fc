package authz

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/rbac/v1"
)

// describe returns rules as upstream prints them in its errors: the verbs of one
// resource together, fields that are empty left out, in order.
func describe(rules []v1.PolicyRule) []string {
	type simple struct{ group, resource, name string }
	var out []string
	merged := map[simple]*v1.PolicyRule{}
	for _, r := range rules {
		if len(r.APIGroups) != 1 || len(r.Resources) != 1 || len(r.ResourceNames) > 1 || len(r.NonResourceURLs) > 0 {
			out = append(out, compactString(&r))
			continue
		}
		key := simple{group: r.APIGroups[0], resource: r.Resources[0]}
		if len(r.ResourceNames) == 1 {
			key.name = "/" + r.ResourceNames[0] // an empty name is not none
		}
		if m := merged[key]; m != nil {
			m.Verbs = append(m.Verbs, r.Verbs...)
		} else {
			m := r
			m.Verbs = slices.Clone(r.Verbs)
			merged[key] = &m
		}
	}
	for _, r := range merged {
		out = append(out, compactString(r))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// compactString returns a rule on one line.
func compactString(r *v1.PolicyRule) string {
	var parts []string
	for _, f := range [...]struct {
		name   string
		values []string
	}{{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"NonResourceURLs", r.NonResourceURLs}, {"ResourceNames", r.ResourceNames}, {"Verbs", r.Verbs}} {
		if len(f.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", f.name, f.values))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
