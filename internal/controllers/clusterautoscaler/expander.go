package clusterautoscaler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelpers "k8s.io/component-helpers/resource"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"
)

// expand chooses one of several options: each expander keeps the options that it
// prefers, and one of the rest is chosen at random.
func (a *autoscaler) expand(ctx context.Context, options []*option) *option {
	for _, name := range a.Expanders {
		if len(options) == 1 {
			break
		}
		switch name {
		case "least-waste":
			options = leastWaste(options)
		case "priority":
			options = a.byPriority(ctx, options)
		}
	}
	return options[rand.IntN(len(options))] //nolint:gosec // not used for security
}

// leastWaste returns the options that leave the least of their new nodes' CPU and memory
// unused.
func leastWaste(options []*option) (best []*option) {
	least := 0.0
	for _, o := range options {
		switch w := waste(o); {
		case len(best) == 0 || w < least:
			best, least = []*option{o}, w
		case w == least:
			best = append(best, o)
		}
	}
	return best
}

// waste returns the sum of the unused shares of the new nodes' CPU and memory.
func waste(o *option) float64 {
	var cpu, memory float64
	for _, p := range o.pods {
		r := resourcehelpers.PodRequests(p, resourcehelpers.PodResourcesOptions{})
		cpu, memory = cpu+r.Cpu().AsApproximateFloat64(), memory+r.Memory().AsApproximateFloat64()
	}
	has := o.group.template.Status.Allocatable
	n := float64(len(o.nodes))
	return unused(n*has.Cpu().AsApproximateFloat64(), cpu) + unused(n*has.Memory().AsApproximateFloat64(), memory)
}

func unused(has, used float64) float64 {
	if has <= 0 {
		return 0
	}
	return (has - used) / has
}

// priorities is the ConfigMap with the groups' priorities.
const priorities = "cluster-autoscaler-priority-expander"

// byPriority returns the options whose group matches the expressions of the greatest
// priority; all of them where none does, or where there are no priorities. It records
// events of what is wrong with the ConfigMap, one of a kind until it changes.
func (a *autoscaler) byPriority(ctx context.Context, options []*option) []*option {
	cm, err := a.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, priorities, metav1.GetOptions{})
	if err != nil {
		klog.FromContext(ctx).V(2).Info("There are no priorities of node groups", "err", err)
		return options
	}
	if a.warnedOf != cm.ResourceVersion {
		a.warnedOf = cm.ResourceVersion
		clear(a.warned)
	}
	warn := func(reason, message string) {
		if !a.warned[message] {
			a.warned[message] = true
			a.recorder.Event(cm, v1.EventTypeWarning, reason, message)
		}
	}
	text, ok := cm.Data["priorities"]
	if !ok {
		warn("PriorityConfigMapInvalid", "Wrong configmap for priority expander, doesn't contain priorities key. Ignoring update.")
		return options
	}
	table, err := parsePriorities(text)
	if err != nil {
		warn("PriorityConfigMapInvalid", fmt.Sprintf("Wrong configuration for priority expander: %v. Ignoring update.", err))
		return options
	}
	var best []*option
	var most int
	for _, o := range options {
		priority, ok := highest(table, o.group.ID())
		switch {
		case !ok:
			warn("PriorityConfigMapNotMatchedGroup", fmt.Sprintf("Priority expander: node group %s not found in priority expander configuration. The group won't be used.", o.group.ID()))
		case len(best) == 0 || priority > most:
			best, most = []*option{o}, priority
		case priority == most:
			best = append(best, o)
		}
	}
	if len(best) == 0 {
		warn("PriorityConfigMapNoGroupMatched", "Priority expander: no priorities info found for any of the expansion options. Falling back to random choice.")
		return options
	}
	return best
}

// highest returns the greatest priority that has an expression which matches a group's ID,
// and whether there is one.
func highest(table map[int][]*regexp.Regexp, id string) (most int, ok bool) {
	for priority, expressions := range table {
		if (!ok || priority > most) && slices.ContainsFunc(expressions, func(e *regexp.Regexp) bool { return e.MatchString(id) }) {
			most, ok = priority, true
		}
	}
	return most, ok
}

// parsePriorities reads a map from priorities to lists of regular expressions.
func parsePriorities(text string) (map[int][]*regexp.Regexp, error) {
	if text == "" {
		return nil, fmt.Errorf("priority configuration in %s configmap is empty; please provide valid configuration", priorities)
	}
	var raw map[int][]string
	if err := yaml.Unmarshal([]byte(text), &raw); err != nil {
		return nil, fmt.Errorf("Can't parse YAML with priorities in the configmap: %w", err) //nolint:staticcheck // upstream's
	}
	out := make(map[int][]*regexp.Regexp, len(raw))
	for priority, list := range raw {
		for _, text := range list {
			e, err := regexp.Compile(text)
			if err != nil {
				return nil, fmt.Errorf("Can't compile regexp rule for priority %d and rule %s: %w", priority, text, err) //nolint:staticcheck // upstream's
			}
			out[priority] = append(out[priority], e)
		}
	}
	return out, nil
}
