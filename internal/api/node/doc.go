// Package node has the catalogue rows of the API group node.k8s.io: RuntimeClass.
// It may import packages api, row, podspec and the published API libraries.
package node
