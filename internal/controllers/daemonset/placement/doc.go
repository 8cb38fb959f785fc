// Package placement decides where a DaemonSet has pods, and what binds a pod to its
// node. The DaemonSet controller asks it, and the cluster autoscaler, about nodes that are
// yet to come. It imports types only.
package placement
