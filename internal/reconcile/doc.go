// Package reconcile is the loop that control loops share: typed handlers of
// informers, a queue of keys, and workers that compare each object with what is,
// with backoff, recovery from panics and the trace's cause. The controllers of a
// cluster (internal/controllers) and those of each API server
// (internal/apiserver) are made of it.
//
// It may import client-go, apimachinery and internal/trace, nothing else of this
// module.
package reconcile
