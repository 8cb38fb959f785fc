// Package report reports a node to the API: it registers the Node object, keeps
// its labels, capacity, conditions and runtime features up to date, and renews
// the node's lease.
package report
