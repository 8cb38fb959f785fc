// Package storage has the catalogue rows of the API group storage.k8s.io.
// It may import packages api, podspec, row and the published API libraries.
package storage
