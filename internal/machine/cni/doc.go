// Package cni gives a node without a CNI configuration a bridge for its pods,
// with addresses from its own range, and lets them out through the machine.
package cni
