// Package nodelifecycle watches over nodes: it finds those that no longer
// renew their lease, taints nodes by their conditions, and evicts pods from
// nodes with NoExecute taints that they do not tolerate.
package nodelifecycle
