// Package resource has the catalogue rows of the API group resource.k8s.io: dynamic resource allocation.
// It may import packages api, row, podspec, the published API libraries and the API
// server library's CEL environment, which compiles the selectors.
package resource
