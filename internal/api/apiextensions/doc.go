// Package apiextensions has the rows of apiextensions.k8s.io: the definitions
// of custom resources. It may import packages api and row, and leaf packages
// of k8s.io/apiextensions-apiserver.
package apiextensions
