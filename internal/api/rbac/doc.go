// Package rbac has the catalogue rows of the API group rbac.authorization.k8s.io.
// It may import packages api, row and the published API libraries.
package rbac
