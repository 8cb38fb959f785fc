// Package daemonset keeps a pod of each DaemonSet on every node that it is for. The
// scheduler binds these pods: each has a required affinity for its node's name.
//
// It may import internal/controllers and its package history, and client-go.
package daemonset
