package framework

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	"keelson.dev/keelson/internal/api/podspec"
)

// AffinityTerm is a parsed pod (anti-)affinity term.
type AffinityTerm struct {
	Namespaces        sets.Set[string]
	NamespaceSelector labels.Selector
	Selector          labels.Selector
	TopologyKey       string
	// Weight is the weight of a preferred term.
	Weight int32
}

// Matches reports whether the term selects pod. nsLabels gives the labels of
// pod's namespace and is only called when the term selects by them.
func (t *AffinityTerm) Matches(pod *v1.Pod, nsLabels func(string) labels.Set) bool {
	if !t.Namespaces.Has(pod.Namespace) {
		if t.NamespaceSelector == nil {
			return false
		}
		if !t.NamespaceSelector.Empty() && !t.NamespaceSelector.Matches(nsLabels(pod.Namespace)) {
			return false
		}
	}
	return t.Selector.Matches(labels.Set(pod.Labels))
}

// PodInfo is a pod with what scheduling reads from it, parsed once.
type PodInfo struct {
	Pod      *v1.Pod
	Requests *PodRequests
	// Affinity is nil for the many pods without inter-pod terms.
	Affinity *PodAffinityTerms
	Ports    []HostPort
	// Claims are the "namespace/name" of the claims that the pod uses.
	Claims []string
}

// PodAffinityTerms are the parsed inter-pod terms of a pod.
type PodAffinityTerms struct {
	Required, RequiredAnti   []AffinityTerm
	Preferred, PreferredAnti []AffinityTerm
	// Err is the error of a selector that cannot be parsed.
	Err error
}

// NewPodInfo parses pod.
func NewPodInfo(pod *v1.Pod) *PodInfo {
	return NewPodInfoOf(pod, NewPodRequests(pod, true))
}

// NewPodInfoOf does so where the pod's requests have been computed before.
func NewPodInfoOf(pod *v1.Pod, r *PodRequests) *PodInfo {
	return &PodInfo{Pod: pod, Requests: r, Affinity: ParseAffinity(pod), Ports: HostPorts(pod), Claims: podspec.ClaimKeys(pod)}
}

// At returns the same for the pod on a node: what NewPodInfo has read does not
// depend on it.
func (p *PodInfo) At(node string) *PodInfo {
	pod := *p.Pod
	pod.Spec.NodeName = node
	out := *p
	out.Pod = &pod
	return &out
}

// ParseAffinity parses pod's inter-pod terms; nil when it has none.
func ParseAffinity(pod *v1.Pod) *PodAffinityTerms {
	a := pod.Spec.Affinity
	if a == nil || a.PodAffinity == nil && a.PodAntiAffinity == nil {
		return nil
	}
	out := &PodAffinityTerms{}
	required := func(terms []v1.PodAffinityTerm) (parsed []AffinityTerm) {
		for i := range terms {
			t, err := newAffinityTerm(pod, &terms[i], 0)
			if err != nil {
				out.Err = err
				continue
			}
			parsed = append(parsed, t)
		}
		return parsed
	}
	preferred := func(terms []v1.WeightedPodAffinityTerm) (parsed []AffinityTerm) {
		for i := range terms {
			t, err := newAffinityTerm(pod, &terms[i].PodAffinityTerm, terms[i].Weight)
			if err != nil {
				out.Err = err
				continue
			}
			parsed = append(parsed, t)
		}
		return parsed
	}
	if p := a.PodAffinity; p != nil {
		out.Required = required(p.RequiredDuringSchedulingIgnoredDuringExecution)
		out.Preferred = preferred(p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		out.RequiredAnti = required(p.RequiredDuringSchedulingIgnoredDuringExecution)
		out.PreferredAnti = preferred(p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if out.Err == nil && len(out.Required)+len(out.RequiredAnti)+len(out.Preferred)+len(out.PreferredAnti) == 0 {
		return nil
	}
	return out
}

// newAffinityTerm parses one term of pod. matchLabelKeys need no care here:
// the API server has merged them into the label selector.
func newAffinityTerm(pod *v1.Pod, term *v1.PodAffinityTerm, weight int32) (AffinityTerm, error) {
	selector, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
	if err != nil {
		return AffinityTerm{}, err
	}
	t := AffinityTerm{Selector: selector, TopologyKey: term.TopologyKey, Weight: weight, Namespaces: sets.New(term.Namespaces...)}
	if term.NamespaceSelector != nil {
		if t.NamespaceSelector, err = metav1.LabelSelectorAsSelector(term.NamespaceSelector); err != nil {
			return AffinityTerm{}, err
		}
	} else if len(term.Namespaces) == 0 {
		t.Namespaces.Insert(pod.Namespace)
	}
	return t, nil
}
