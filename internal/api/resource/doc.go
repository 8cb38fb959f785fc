// Package resource has the catalogue rows of the API group resource.k8s.io: dynamic resource allocation.
// It may import packages api, row and the published API libraries.
package resource
