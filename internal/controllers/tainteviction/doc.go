// Package tainteviction evicts pods from nodes with NoExecute taints that they do
// not tolerate, or no longer do.
package tainteviction
