// Package storagemigration has the rows of storagemigration.k8s.io:
// migrations of stored objects to the version in which they are stored now
// (KEP-4192). It may import packages api and row.
package storagemigration
