// Package aggregation joins other API servers to this one: what APIServices
// say is served elsewhere is passed on to its server, and shown in discovery
// and OpenAPI. Whether a server is available is found by a controller, which
// asks this package to try. It may import client-go, kube-openapi,
// k8s.io/kube-aggregator's types and leaf packages of k8s.io/apiserver.
package aggregation
