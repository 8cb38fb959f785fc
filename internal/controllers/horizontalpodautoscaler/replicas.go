package horizontalpodautoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	resourcehelpers "k8s.io/component-helpers/resource"

	"keelson.dev/keelson/internal/api/podspec"
)

// starts says for how long a pod is at its start: its CPU, and its readiness.
type starts struct{ cpu, readiness time.Duration }

// tolerances holds the tolerances of a decrease and of an increase.
type tolerances struct{ down, up float64 }

// within reports whether a ratio of usage to its target changes nothing.
func (t tolerances) within(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// saturated is a+b, or the nearest number that there is.
func saturated(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}

// count is f as a number of replicas, rounded up.
func count(f float64) int32 {
	switch f = math.Ceil(f); {
	case math.IsNaN(f):
		return 0
	case f >= math.MaxInt32:
		return math.MaxInt32
	case f <= math.MinInt32:
		return math.MinInt32
	}
	return int32(f)
}

// measure is the usage of the measured pods.
type measure struct {
	// ratio is the ratio of the usage to its target.
	ratio float64
	// average is a pod's, in thousandths; percent is the share of what they request.
	average int64
	percent int32
}

// grouped are pods by what is known of their metric.
type grouped struct {
	ready                     int
	unready, missing, ignored sets.Set[string]
}

// group groups pods by their samples of a metric; resource is empty if it is not one
// of a resource.
func group(pods []*v1.Pod, m samples, resource v1.ResourceName, at starts, now time.Time) grouped {
	g := grouped{unready: sets.New[string](), missing: sets.New[string](), ignored: sets.New[string]()}
	for _, pod := range pods {
		s, measured := m[pod.Name]
		switch {
		case pod.DeletionTimestamp != nil || pod.Status.Phase == v1.PodFailed || pod.Status.Phase == v1.PodSucceeded:
			g.ignored.Insert(pod.Name)
		case pod.Status.Phase == v1.PodPending:
			g.unready.Insert(pod.Name)
		case !measured:
			g.missing.Insert(pod.Name)
		case resource == v1.ResourceCPU && starting(pod, s, at, now):
			g.unready.Insert(pod.Name)
		default:
			g.ready++
		}
	}
	return g
}

// starting reports whether a pod's CPU is that of its start.
func starting(pod *v1.Pod, s sample, at starts, now time.Time) bool {
	ready := podspec.Condition(pod, v1.PodReady)
	start := pod.Status.StartTime
	if ready == nil || start == nil {
		return true
	}
	if start.Add(at.cpu).After(now) {
		return ready.Status == v1.ConditionFalse || s.at.Before(ready.LastTransitionTime.Add(s.window))
	}
	// It has never been ready.
	return ready.Status == v1.ConditionFalse && start.Add(at.readiness).After(ready.LastTransitionTime.Time)
}

// target is the target of a metric of pods.
type target struct {
	resource v1.ResourceName // empty for a custom metric
	// of measures pods.
	of func(samples) (measure, error)
	// assumed returns the usage to assume of a pod that is not measured, where the
	// number would decrease.
	assumed func(pod string) int64
	within  tolerances
	starts  starts
}

// replicas returns the number of replicas that a metric of pods asks for. Unknown
// usage is assumed in favour of no change: pods without a sample use nothing where
// the number would increase, and their target where it would decrease; pods that are
// not ready yet use nothing. If that turns the direction, nothing changes.
func replicas(pods []*v1.Pod, m samples, current int32, t target, now time.Time) (int32, measure, error) {
	if len(pods) == 0 {
		return 0, measure{}, errors.New("no pods returned by selector while calculating replica count")
	}
	g := group(pods, m, t.resource, t.starts, now)
	for pod := range g.ignored.Union(g.unready) {
		delete(m, pod)
	}
	if len(m) == 0 {
		return 0, measure{}, errors.New("did not receive metrics for targeted pods (pods might be unready)")
	}
	known, err := t.of(m)
	if err != nil {
		return 0, measure{}, err
	}
	up := len(g.unready) > 0 && known.ratio > 1
	if !up && len(g.missing) == 0 {
		if t.within.within(known.ratio) {
			return current, known, nil
		}
		return count(known.ratio * float64(g.ready)), known, nil
	}
	for pod := range g.missing {
		switch {
		case known.ratio < 1:
			m[pod] = sample{value: t.assumed(pod)}
		case known.ratio > 1:
			m[pod] = sample{}
		}
	}
	if up {
		for pod := range g.unready {
			m[pod] = sample{}
		}
	}
	assumed, err := t.of(m)
	if err != nil {
		return 0, known, err
	}
	if t.within.within(assumed.ratio) || known.ratio < 1 && assumed.ratio > 1 || known.ratio > 1 && assumed.ratio < 1 {
		return current, known, nil
	}
	n := count(assumed.ratio * float64(len(m)))
	if assumed.ratio < 1 && n > current || assumed.ratio > 1 && n < current {
		return current, known, nil
	}
	return n, known, nil
}

// averaging compares the average of the samples with want.
func averaging(want int64) func(samples) (measure, error) {
	return func(m samples) (measure, error) {
		sum := int64(0)
		for _, s := range m {
			sum = saturated(sum, s.value)
		}
		average := sum / int64(len(m))
		return measure{ratio: float64(average) / float64(want), average: average}, nil
	}
}

// utilization compares the share of what pods, or one container of each, request of
// a resource, with want percent.
func utilization(pods []*v1.Pod, resource v1.ResourceName, container string, want int32, within tolerances, at starts) target {
	var requested map[string]int64
	return target{
		resource: resource, within: within, starts: at,
		of: func(m samples) (measure, error) {
			if requested == nil {
				var err error
				if requested, err = requests(pods, resource, container); err != nil {
					return measure{}, err
				}
			}
			var used, all, n int64
			for pod, s := range m {
				r, ok := requested[pod]
				if !ok {
					continue // it is not one of the pods, as far as is known here
				}
				used, all, n = saturated(used, s.value), saturated(all, r), n+1
			}
			if all == 0 {
				return measure{}, errors.New("no metrics returned matched known pods")
			}
			percent := count(math.Floor(float64(used) * 100 / float64(all)))
			return measure{ratio: float64(percent) / float64(want), average: used / n, percent: percent}, nil
		},
		assumed: func(pod string) int64 { return requested[pod] * int64(max(100, want)) / 100 },
	}
}

// requests returns what each pod, or one container of it, requests of a resource.
func requests(pods []*v1.Pod, resource v1.ResourceName, container string) (map[string]int64, error) {
	out := make(map[string]int64, len(pods))
	for _, pod := range pods {
		if container == "" && resourcehelpers.IsPodLevelRequestsSet(pod) {
			q, ok := resourcehelpers.PodRequests(pod, resourcehelpers.PodResourcesOptions{})[resource]
			if !ok {
				return nil, fmt.Errorf("missing pod-level request for %s in Pod %s", resource, pod.Name)
			}
			out[pod.Name] = q.MilliValue()
			continue
		}
		sum, found := int64(0), container == ""
		add := func(c *v1.Container) error {
			if container != "" && c.Name != container {
				return nil
			}
			q, ok := c.Resources.Requests[resource]
			if !ok {
				return fmt.Errorf("missing request for %s in container %s of Pod %s", resource, c.Name, pod.Name)
			}
			sum, found = sum+q.MilliValue(), true
			return nil
		}
		for i := range pod.Spec.Containers {
			if err := add(&pod.Spec.Containers[i]); err != nil {
				return nil, err
			}
		}
		for i := range pod.Spec.InitContainers {
			if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
				if err := add(c); err != nil {
					return nil, err
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("container %s not found in Pod %s", container, pod.Name)
		}
		out[pod.Name] = sum
	}
	return out, nil
}

// byValue returns the number of replicas that a metric asks for by its value, if it
// is not a metric of the pods: in proportion to the pods that are ready, or, where
// there are none yet, to one.
func byValue(value, want int64, current int32, pods []*v1.Pod, within tolerances) (int32, error) {
	ratio := float64(value) / float64(want)
	if current == 0 {
		return count(ratio), nil
	}
	if within.within(ratio) {
		return current, nil
	}
	if len(pods) == 0 {
		return 0, errors.New("unable to calculate ready pods: no pods returned by selector while calculating replica count")
	}
	ready := 0
	for _, pod := range pods {
		if c := podspec.Condition(pod, v1.PodReady); pod.Status.Phase == v1.PodRunning && c != nil && c.Status == v1.ConditionTrue {
			ready++
		}
	}
	return count(ratio * float64(ready)), nil
}

// byAverage returns the number of replicas so that each takes want of a metric's
// value, and the value that each takes now; status is the number of replicas that
// there are.
func byAverage(value, want int64, status int32, within tolerances) (n int32, each int64) {
	n = status
	if ratio := float64(value) / (float64(want) * float64(status)); !within.within(ratio) {
		n = count(float64(value) / float64(want))
	}
	switch {
	case status == 0:
		return n, 0
	case value == math.MaxInt64:
		return n, value
	}
	return n, int64(math.Ceil(float64(value) / float64(status)))
}
