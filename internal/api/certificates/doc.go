// Package certificates has the catalogue rows of the API group certificates.k8s.io.
// It may import packages api, row, signername and the published API libraries.
package certificates
