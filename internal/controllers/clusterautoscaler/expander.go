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
// priority; all options where none matches, or where there are no priorities.
func (a *autoscaler) byPriority(ctx context.Context, options []*option) []*option {
	cm, err := a.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, priorities, metav1.GetOptions{})
	if err != nil {
		return options
	}
	table, err := parsePriorities(cm.Data["priorities"])
	if err != nil {
		a.recorder.Event(cm, v1.EventTypeWarning, "PriorityConfigMapInvalid", fmt.Sprintf("Wrong configuration for priority expander: %v. Ignoring update.", err))
		return options
	}
	best, most := options, 0
	found := false
	for priority, expressions := range table {
		of := slices.DeleteFunc(slices.Clone(options), func(o *option) bool {
			return !slices.ContainsFunc(expressions, func(e *regexp.Regexp) bool { return e.MatchString(o.group.ID()) })
		})
		if len(of) > 0 && (!found || priority > most) {
			best, most, found = of, priority, true
		}
	}
	return best
}

// parsePriorities reads a map from priorities to lists of regular expressions.
func parsePriorities(text string) (map[int][]*regexp.Regexp, error) {
	var raw map[int][]string
	if err := yaml.Unmarshal([]byte(text), &raw); err != nil {
		return nil, fmt.Errorf("can't parse YAML with priorities in the configmap: %w", err)
	}
	out := make(map[int][]*regexp.Regexp, len(raw))
	for priority, list := range raw {
		for _, text := range list {
			e, err := regexp.Compile(text)
			if err != nil {
				return nil, fmt.Errorf("can't compile regexp rule for priority %d and rule %s: %w", priority, text, err)
			}
			out[priority] = append(out[priority], e)
		}
	}
	return out, nil
}
