// Package autoscalingv2 has the validation that the markers of k8s.io/api/autoscaling/v2 declare.
//
// +k8s:validation-gen=TypesWithField=TypeMeta
// +k8s:validation-gen-input=k8s.io/api/autoscaling/v2
// +k8s:validation-gen-scheme-registry=nil
// +k8s:validation-gen-nolint
package autoscalingv2
