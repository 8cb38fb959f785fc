// Package report tells the API of a node: it registers the Node object and keeps
// its labels, capacity, conditions and what the runtime can do, and renews the
// node's lease.
package report
