// Package dns is the name server of each node for its pods. It answers for the
// names of the cluster by the Kubernetes DNS specification
// (github.com/kubernetes/dns, version 1.1.0), and forwards queries for all others
// to the machine's own resolvers.
//
// The answers are computed from the informers' own objects at each query, so that a
// change is visible as soon as the informer has it, and no object is kept twice.
// Where the specification is silent, answers are CoreDNS's, with which
// test/dnsoracle compares them.
//
// The server listens on the cluster address of the Service kube-system/kube-dns,
// which the node has on a link of its own (link.go): packets of pods are delivered
// without translation, whichever proxy serves Services. The Service carries the
// label service-proxy-name, so that no service proxy handles it.
//
// It imports internal/network/index and nothing else of this module.
package dns
