// Package shares divides the machine among a node's pods by cgroups: one of all
// pods, one of each class of service, one of each pod.
package shares
