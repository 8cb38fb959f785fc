// Package admission checks whether a pod can run on the node: the scheduler's
// checks once more, for pods that were bound without it and for changes since, and
// the checks that only the node can make.
package admission
