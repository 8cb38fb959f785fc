// Package corev1 has the validation that the markers of k8s.io/api/core/v1 declare.
//
// +k8s:validation-gen=TypesWithField=TypeMeta
// +k8s:validation-gen-input=k8s.io/api/core/v1
// +k8s:validation-gen-scheme-registry=nil
// +k8s:validation-gen-nolint
package corev1
