// Package horizontalpodautoscaler sets the replicas of what a
// HorizontalPodAutoscaler names, through its scale subresource, by metrics
// (https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/,
// KEP-2021 for scaling to and from zero).
//
//   - source.go asks the APIs of resource, custom and external metrics,
//   - replicas.go computes the replicas that a metric asks for,
//   - metric.go does so for each kind of metric, and makes its status,
//   - behavior.go bounds how fast the number changes,
//   - autoscaler.go puts this together.
package horizontalpodautoscaler
