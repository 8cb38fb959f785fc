// Package history keeps the ControllerRevisions of workloads: each is a pod
// template that the workload had, so that its pods can be told apart by template,
// and a rollout undone.
//
// It may import internal/controllers and client-go.
package history
