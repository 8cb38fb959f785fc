// Package trace records what caused what: each write that a component makes
// while it reconciles an object is stored with that object, at the revision
// that the component saw, as its cause. The record is kept in memory, is
// bounded, and is what `keelson trace` prints.
//
// It may import apimachinery only; every component above imports it to name
// its causes.
package trace
