// Package core has the catalogue rows of the core API group: pods, services,
// nodes, namespaces and the rest of v1. It may import packages api, row,
// events and podspec and the published API libraries.
package core
