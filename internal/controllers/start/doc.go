// Package start runs all controllers. Its Context is what the cluster has to
// give them.
//
// It may import the controllers' packages; only internal/cluster imports it.
package start
