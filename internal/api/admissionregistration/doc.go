// Package admissionregistration has the catalogue rows of the API group admissionregistration.k8s.io.
// It may import packages api, row and the published API libraries.
package admissionregistration
