// Package autoscaling tests and measures clusters of simulated nodes: how they grow
// and shrink with a Deployment, and the cost of many pods and nodes.
package autoscaling
