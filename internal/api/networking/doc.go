// Package networking has the catalogue rows of the API group networking.k8s.io.
// It may import packages api, row and the published API libraries.
package networking
