// Package upkeep holds the loop that keeps tables of the kernel as they should be:
// what changed is written, a failure is tried again, and what others did to the
// tables is mended. It imports nothing of this module.
package upkeep
