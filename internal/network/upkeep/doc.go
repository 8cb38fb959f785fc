// Package upkeep has the loop that keeps tables of the kernel in the wanted state:
// it writes changes, retries after failures, and repairs tables that other
// processes changed. It imports nothing of this module.
package upkeep
