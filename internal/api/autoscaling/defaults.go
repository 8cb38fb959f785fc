package autoscaling

import (
	v2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

// defaultUtilization is the share of the requested CPU that an autoscaler
// without metrics aims at, in percent.
const defaultUtilization = 80

func setDefaults(a *v2.HorizontalPodAutoscaler) {
	s := &a.Spec
	if s.MinReplicas == nil {
		s.MinReplicas = new(int32(1))
	}
	if len(s.Metrics) == 0 {
		s.Metrics = []v2.MetricSpec{{
			Type: v2.ResourceMetricSourceType,
			Resource: &v2.ResourceMetricSource{
				Name:   corev1.ResourceCPU,
				Target: v2.MetricTarget{Type: v2.UtilizationMetricType, AverageUtilization: new(int32(defaultUtilization))},
			},
		}}
	}
	if s.Behavior != nil {
		// Up: at once, by four pods or a doubling each 15 seconds. Down: as
		// far as wanted; how long to wait first is the controller's own setting.
		s.Behavior.ScaleUp = complete(s.Behavior.ScaleUp, new(int32(0)), []v2.HPAScalingPolicy{
			{Type: v2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
			{Type: v2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		})
		s.Behavior.ScaleDown = complete(s.Behavior.ScaleDown, nil, []v2.HPAScalingPolicy{
			{Type: v2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
		})
	}
}

// complete fills in what rules leave out.
func complete(rules *v2.HPAScalingRules, window *int32, policies []v2.HPAScalingPolicy) *v2.HPAScalingRules {
	if rules == nil {
		rules = &v2.HPAScalingRules{}
	}
	if rules.StabilizationWindowSeconds == nil {
		rules.StabilizationWindowSeconds = window
	}
	if rules.SelectPolicy == nil {
		rules.SelectPolicy = new(v2.MaxChangePolicySelect)
	}
	if rules.Policies == nil {
		rules.Policies = policies
	}
	return rules
}
