// Package coordination has the catalogue rows of the API group coordination.k8s.io: Lease.
// It may import packages api, row and the published API libraries.
package coordination
