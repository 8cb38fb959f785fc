// Package endpointslice keeps, for each Service with a selector, the slices and
// the Endpoints object that say where its pods are.
package endpointslice
