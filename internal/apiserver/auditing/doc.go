// Package auditing makes the policy and the back ends of the audit log, from
// upstream's: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/. It
// imports no other package of the project.
package auditing
