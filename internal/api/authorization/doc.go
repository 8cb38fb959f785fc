// Package authorization has the catalogue rows of the API group authorization.k8s.io: reviews that the API server answers.
// It may import packages api, row and the published API libraries.
package authorization
