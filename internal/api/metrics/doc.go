// Package metrics has the rows of metrics.k8s.io: what nodes and pods use. They
// are not stored: internal/apiserver/usage computes them.
package metrics
