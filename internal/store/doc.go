// Package store keeps the objects of the cluster: one global revision,
// optimistic concurrency, exact list at a revision, watch from a revision and
// compaction, which is etcd's contract. The entries are decoded, immutable
// objects, shared by every reader of the process.
//
// The engines are its subpackages embedded (Pebble) and etcd. It may
// import apimachinery; it knows nothing of resources, HTTP or validation.
package store
