// Package autoscaling has the catalogue rows of the API group autoscaling: HorizontalPodAutoscaler, stored in v2.
// It may import packages api, row, podspec and the published API libraries.
package autoscaling
