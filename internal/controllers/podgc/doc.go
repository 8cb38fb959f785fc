// Package podgc deletes pods that nobody will end: those of nodes that are
// gone, those that were never bound and are being deleted, and the oldest of
// very many that have ended.
package podgc
