// Package provision is to the local driver of a node what the CSI project's
// external-provisioner and external-resizer are to other drivers: it has the
// driver make, grow and delete the volumes that the cluster's objects ask for.
//
// Each node does so for the claims of pods that were scheduled to it, and for the
// volumes that are its own, by the rights of the role that package cluster gives
// to nodes. Events and annotations are those of the two programs.
package provision
