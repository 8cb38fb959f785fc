// Package discovery has the catalogue rows of the API group discovery.k8s.io: EndpointSlice.
// It may import packages api, row and the published API libraries.
package discovery
