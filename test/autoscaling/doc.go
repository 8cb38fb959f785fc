// Package autoscaling tests and measures clusters of simulated nodes: how they grow
// and shrink with a Deployment, and what many pods and nodes cost.
package autoscaling
