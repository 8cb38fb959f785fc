// Package metrics has the rows of metrics.k8s.io, the usage of nodes and pods.
// They are not stored: internal/apiserver/usage computes them.
package metrics
