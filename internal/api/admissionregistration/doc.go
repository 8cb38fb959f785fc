// Package admissionregistration has the catalogue rows of the API group admissionregistration.k8s.io.
// It may import packages api, row, the published API libraries and the API
// server library's CEL packages, which compile the policies' expressions.
package admissionregistration
