package restart

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func rule(a v1.ContainerRestartRuleAction, op v1.ContainerRestartRuleOnExitCodesOperator, codes ...int32) v1.ContainerRestartRule {
	return v1.ContainerRestartRule{Action: a, ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: op, Values: codes}}
}

func TestAfter(t *testing.T) {
	const (
		in    = v1.ContainerRestartRuleOnExitCodesOpIn
		notIn = v1.ContainerRestartRuleOnExitCodesOpNotIn
		again = v1.ContainerRestartRuleActionRestart
		all   = v1.ContainerRestartRuleActionRestartAllContainers
	)
	always, onFailure, never := v1.ContainerRestartPolicyAlways, v1.ContainerRestartPolicyOnFailure, v1.ContainerRestartPolicyNever
	for _, c := range []struct {
		name  string
		pod   v1.RestartPolicy
		own   *v1.ContainerRestartPolicy
		rules []v1.ContainerRestartRule
		code  int32
		want  Action
	}{
		{"always, success", v1.RestartPolicyAlways, nil, nil, 0, Container},
		{"on failure, success", v1.RestartPolicyOnFailure, nil, nil, 0, Nothing},
		{"on failure, failure", v1.RestartPolicyOnFailure, nil, nil, 1, Container},
		{"never", v1.RestartPolicyNever, nil, nil, 1, Nothing},
		{"own always", v1.RestartPolicyNever, &always, nil, 0, Container},
		{"own never", v1.RestartPolicyAlways, &never, nil, 1, Nothing},
		{"own on failure, success", v1.RestartPolicyAlways, &onFailure, nil, 0, Nothing},
		{"own on failure, failure", v1.RestartPolicyNever, &onFailure, nil, 2, Container},
		{"rule in", v1.RestartPolicyNever, &never, []v1.ContainerRestartRule{rule(again, in, 41, 42)}, 42, Container},
		{"rule in, other code", v1.RestartPolicyNever, &never, []v1.ContainerRestartRule{rule(again, in, 42)}, 1, Nothing},
		{"rule not in", v1.RestartPolicyNever, &never, []v1.ContainerRestartRule{rule(again, notIn, 42)}, 1, Container},
		{"rule not in, that code", v1.RestartPolicyNever, &never, []v1.ContainerRestartRule{rule(again, notIn, 42)}, 42, Nothing},
		{"first rule counts", v1.RestartPolicyNever, &never, []v1.ContainerRestartRule{rule(all, in, 3), rule(again, in, 3)}, 3, Pod},
		{"no rule, own policy", v1.RestartPolicyNever, &always, []v1.ContainerRestartRule{rule(all, in, 3)}, 4, Container},
	} {
		k := &v1.Container{RestartPolicy: c.own, RestartPolicyRules: c.rules}
		if got := After(&v1.PodSpec{RestartPolicy: c.pod}, k, c.code); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestOnce(t *testing.T) {
	plain := v1.Container{}
	for _, c := range []struct {
		name string
		spec v1.PodSpec
		want bool
	}{
		{"never", v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, Containers: []v1.Container{plain, {RestartPolicy: ptr.To(v1.ContainerRestartPolicyNever)}}}, true},
		{"on failure", v1.PodSpec{RestartPolicy: v1.RestartPolicyOnFailure, Containers: []v1.Container{plain}}, false},
		{"one restarts", v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, Containers: []v1.Container{plain, {RestartPolicy: ptr.To(v1.ContainerRestartPolicyOnFailure)}}}, false},
		{"one has rules", v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, Containers: []v1.Container{{RestartPolicy: ptr.To(v1.ContainerRestartPolicyNever),
			RestartPolicyRules: []v1.ContainerRestartRule{rule(v1.ContainerRestartRuleActionRestart, v1.ContainerRestartRuleOnExitCodesOpIn, 1)}}}}, false},
	} {
		if got := Once(&c.spec); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
