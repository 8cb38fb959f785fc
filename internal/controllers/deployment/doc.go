// Package deployment rolls each Deployment's pods from one template to the
// next by scaling its ReplicaSets.
package deployment
