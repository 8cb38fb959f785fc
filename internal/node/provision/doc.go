// Package provision does for a node's local driver what the CSI project's
// external-provisioner and external-resizer do for others: it calls the driver to
// create, expand and delete the volumes that the cluster's objects ask for.
//
// Each node does so for the claims of pods that were scheduled to it, and for the
// volumes that are its own, with the rights of the role keelson:node-storage.
// Events and annotations are those of the two programs.
package provision
