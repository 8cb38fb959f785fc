// Package trace records what caused what: each write that a component makes
// while it reconciles an object is stored with that object, at the revision
// that the component saw, as its cause. The record is kept in memory, is
// bounded, and is what `keelson trace` prints. Beside the writes it has phases: what components did for
// an object without a write, such as the pull of an image.
//
// It may import apimachinery and OpenTelemetry's API only; every component above imports it to name
// its causes.
package trace
