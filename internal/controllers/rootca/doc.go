// Package rootca publishes the cluster's CA bundle as the ConfigMap
// kube-root-ca.crt of each namespace.
//
// It may import internal/controllers and client-go.
package rootca
