// Package nodeipam gives each Node its ranges of pods' addresses, spec.podCIDRs,
// out of the cluster's: one of each family. A range is a Node's until the Node is
// deleted; one that a Node brings itself is respected.
package nodeipam
