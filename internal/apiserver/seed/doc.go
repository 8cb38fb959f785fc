// Package seed stores the objects that a cluster has from its first start, and
// brings those that a new version of the program wants otherwise up to date. It
// writes to the store itself, before the API server takes requests: all of it is
// one or two durable writes.
package seed
