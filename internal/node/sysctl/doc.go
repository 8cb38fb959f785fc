// Package sysctl decides which kernel parameters a pod may set: those that are
// safe on this kernel, and those that the node's administrator allows
// (https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/). It
// imports the API's validation helpers only.
package sysctl
