// Package nodelifecycle watches over nodes: it finds those that no longer renew
// their lease, and taints nodes by their conditions.
package nodelifecycle
