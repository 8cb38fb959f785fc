// Package authentication has the catalogue rows of the API group authentication.k8s.io: reviews that the API server answers.
// It may import packages api, row and the published API libraries.
package authentication
