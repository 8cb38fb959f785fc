package namespace

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// findings holds the results of one pass over a namespace's content.
type findings struct {
	remaining  map[schema.GroupVersionResource]int
	finalizers map[string]int
	failures   map[v1.NamespaceConditionType]v1.NamespaceCondition
}

func newFindings() *findings {
	return &findings{map[schema.GroupVersionResource]int{}, map[string]int{}, map[v1.NamespaceConditionType]v1.NamespaceCondition{}}
}

// fail notes a condition that is true; the first of a type stays.
func (f *findings) fail(t v1.NamespaceConditionType, reason, message string) {
	if _, ok := f.failures[t]; !ok {
		f.failures[t] = v1.NamespaceCondition{Type: t, Status: v1.ConditionTrue, Reason: reason, Message: message}
	}
}

// fine are the conditions of a namespace with nothing left, in the order in
// which they are shown.
var fine = []v1.NamespaceCondition{
	{Type: v1.NamespaceDeletionDiscoveryFailure, Reason: "ResourcesDiscovered", Message: "All resources successfully discovered"},
	{Type: v1.NamespaceDeletionGVParsingFailure, Reason: "ParsedGroupVersions", Message: "All legacy kube types successfully parsed"},
	{Type: v1.NamespaceDeletionContentFailure, Reason: "ContentDeleted", Message: "All content successfully deleted, may be waiting on finalization"},
	{Type: v1.NamespaceContentRemaining, Reason: "ContentRemoved", Message: "All content successfully removed"},
	{Type: v1.NamespaceFinalizersRemaining, Reason: "ContentHasNoFinalizers", Message: "All content-preserving finalizers finished"},
}

// apply returns a copy of ns with the findings as its conditions, or nil where
// they are its conditions already.
func (f *findings) apply(ns *v1.Namespace) *v1.Namespace {
	if len(f.remaining) > 0 {
		var parts []string
		for r, n := range f.remaining {
			parts = append(parts, fmt.Sprintf("%s.%s has %d resource instances", r.Resource, r.Group, n))
		}
		slices.Sort(parts)
		f.fail(v1.NamespaceContentRemaining, "SomeResourcesRemain", "Some resources are remaining: "+strings.Join(parts, ", "))
	}
	if len(f.finalizers) > 0 {
		var parts []string
		for name, n := range f.finalizers {
			parts = append(parts, fmt.Sprintf("%s in %d resource instances", name, n))
		}
		slices.Sort(parts)
		f.fail(v1.NamespaceFinalizersRemaining, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+strings.Join(parts, ", "))
	}
	next := ns.DeepCopy()
	changed := false
	for _, want := range fine {
		want.Status = v1.ConditionFalse
		if bad, ok := f.failures[want.Type]; ok {
			want = bad
		}
		want.LastTransitionTime = metav1.NewTime(time.Now())
		i := slices.IndexFunc(next.Status.Conditions, func(c v1.NamespaceCondition) bool { return c.Type == want.Type })
		if i < 0 {
			next.Status.Conditions = append(next.Status.Conditions, want)
			changed = true
			continue
		}
		is := &next.Status.Conditions[i]
		if is.Status == want.Status && is.Reason == want.Reason && is.Message == want.Message {
			continue
		}
		*is = want
		changed = true
	}
	if !changed {
		return nil
	}
	return next
}
