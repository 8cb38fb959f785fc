// Package endpointslicemirroring shows Endpoints that were written by hand, for
// a Service without a selector, as EndpointSlices: service proxies and DNS
// servers read nothing else (KEP-752).
package endpointslicemirroring
