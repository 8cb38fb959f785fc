package horizontalpodautoscaler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	v2 "k8s.io/api/autoscaling/v2"
	"k8s.io/utils/ptr"
)

func rules(window int32, choice v2.ScalingPolicySelect, policies ...v2.HPAScalingPolicy) *v2.HPAScalingRules {
	return &v2.HPAScalingRules{StabilizationWindowSeconds: ptr.To(window), SelectPolicy: &choice, Policies: policies}
}

func byPods(n, seconds int32) v2.HPAScalingPolicy {
	return v2.HPAScalingPolicy{Type: v2.PodsScalingPolicy, Value: n, PeriodSeconds: seconds}
}

func byPercent(n, seconds int32) v2.HPAScalingPolicy {
	return v2.HPAScalingPolicy{Type: v2.PercentScalingPolicy, Value: n, PeriodSeconds: seconds}
}

// TestJudge asks for a number each 15 seconds; what is granted becomes the current one.
func TestJudge(t *testing.T) {
	free := rules(0, v2.MaxChangePolicySelect, byPercent(100, 15), byPods(1000, 15))
	for name, c := range map[string]struct {
		behavior *v2.HorizontalPodAutoscalerBehavior
		begin    int32
		least    int32
		asked    []int32
		granted  []int32
		last     string // AbleToScale's and ScalingLimited's reasons, and whether it is limited
	}{
		"at most doubled":              {begin: 3, asked: []int32{50, 50, 50, 50}, granted: []int32{6, 12, 24, 40}, last: "ReadyForNewScale TooManyReplicas true"},
		"four from one":                {begin: 1, asked: []int32{50}, granted: []int32{4}, last: "ReadyForNewScale ScaleUpLimit true"},
		"down after five minutes":      {begin: 8, asked: append(slices.Repeat([]int32{8}, 1), slices.Repeat([]int32{2}, 21)...), granted: append(slices.Repeat([]int32{8}, 21), 2), last: "ReadyForNewScale DesiredWithinRange false"},
		"down is held":                 {begin: 8, asked: []int32{8, 2}, granted: []int32{8, 8}, last: "ScaleDownStabilized DesiredWithinRange false"},
		"no fewer than the least":      {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: free, ScaleDown: free}, begin: 4, asked: []int32{0}, granted: []int32{1}, last: "ReadyForNewScale TooFewReplicas true"},
		"to zero":                      {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: free, ScaleDown: free}, begin: 4, least: -1, asked: []int32{0}, granted: []int32{0}, last: "ReadyForNewScale DesiredWithinRange false"},
		"two pods a minute":            {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(0, v2.MaxChangePolicySelect, byPods(2, 60)), ScaleDown: free}, begin: 1, asked: slices.Repeat([]int32{20}, 6), granted: []int32{3, 3, 3, 3, 5, 5}, last: "ReadyForNewScale ScaleUpLimit true"},
		"the least of two policies":    {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(0, v2.MinChangePolicySelect, byPods(10, 15), byPercent(50, 15)), ScaleDown: free}, begin: 4, asked: []int32{40, 40}, granted: []int32{6, 9}, last: "ReadyForNewScale ScaleUpLimit true"},
		"the most of two":              {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(0, v2.MaxChangePolicySelect, byPods(10, 15), byPercent(50, 15)), ScaleDown: free}, begin: 4, asked: []int32{40, 40}, granted: []int32{14, 24}, last: "ReadyForNewScale ScaleUpLimit true"},
		"one pod a period, down":       {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: free, ScaleDown: rules(0, v2.MaxChangePolicySelect, byPods(1, 15))}, begin: 6, asked: []int32{1, 1, 1}, granted: []int32{5, 4, 3}, last: "ReadyForNewScale ScaleDownLimit true"},
		"a tenth a period, down":       {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: free, ScaleDown: rules(0, v2.MaxChangePolicySelect, byPercent(10, 15))}, begin: 20, asked: []int32{1, 1}, granted: []int32{18, 16}, last: "ReadyForNewScale ScaleDownLimit true"},
		"never down":                   {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: free, ScaleDown: rules(0, v2.DisabledPolicySelect, byPods(9, 15))}, begin: 6, asked: []int32{1}, granted: []int32{6}, last: "ReadyForNewScale ScaleDownLimit true"},
		"up only if it stays":          {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(30, v2.MaxChangePolicySelect, byPods(99, 15)), ScaleDown: free}, begin: 2, asked: []int32{2, 9, 9, 9}, granted: []int32{2, 2, 9, 9}, last: "ReadyForNewScale DesiredWithinRange false"},
		"a drop undone in the period":  {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(0, v2.MaxChangePolicySelect, byPods(1, 60)), ScaleDown: free}, begin: 6, asked: []int32{2, 9}, granted: []int32{2, 7}, last: "ReadyForNewScale ScaleUpLimit true"},
		"a window of the default down": {behavior: &v2.HorizontalPodAutoscalerBehavior{ScaleUp: free, ScaleDown: &v2.HPAScalingRules{SelectPolicy: ptr.To(v2.MaxChangePolicySelect), Policies: free.Policies}}, begin: 6, asked: []int32{6, 2}, granted: []int32{6, 6}, last: "ScaleDownStabilized DesiredWithinRange false"},
	} {
		t.Run(name, func(t *testing.T) {
			p, current, at := past{}, c.begin, now
			var granted []int32
			var last string
			for _, n := range c.asked {
				v := p.judge(n, bounds{current: current, least: c.least + 1, most: 40, behavior: c.behavior, stabilization: 5 * time.Minute}, at)
				if v.replicas != current {
					p.changed(c.behavior, current, v.replicas, at)
				}
				current = v.replicas
				granted, last = append(granted, current), fmt.Sprint(v.able, " ", v.limit, " ", v.limited)
				at = at.Add(15 * time.Second)
			}
			if !slices.Equal(granted, c.granted) || last != c.last {
				t.Errorf("granted %v, %s; want %v, %s", granted, last, c.granted, c.last)
			}
		})
	}
}
