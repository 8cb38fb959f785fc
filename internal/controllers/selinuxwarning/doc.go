// Package selinuxwarning tells, in events, of pods that use one volume with different
// SELinux labels or change policies: where they land on one node only one of them can have
// the volume, since it is mounted with one label (KEP-1710,
// https://kubernetes.io/docs/tasks/configure-pod-container/security-context/). It is for
// clusters whose nodes enforce SELinux, and runs where it is named in --controllers.
package selinuxwarning
