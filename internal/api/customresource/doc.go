// Package customresource makes the catalogue's rows of custom resources from
// their definitions: schemas, defaults, validation, subresources, columns. It
// may import packages api and row, and leaf packages of
// k8s.io/apiextensions-apiserver.
package customresource
