// Package resourcequota keeps the status of ResourceQuotas: it counts anew what
// a quota is on when the quota changes, when something that it counts is
// removed or ends, and from time to time. It may import package quota.
package resourcequota
