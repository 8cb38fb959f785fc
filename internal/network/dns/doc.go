// Package dns answers pods' questions on each node: for the names of the cluster
// by the Kubernetes DNS specification (github.com/kubernetes/dns, version 1.1.0),
// for all others by asking the machine's own resolvers.
//
// The answers are made of the informers' own objects when they are asked for, so
// that a change is visible as soon as the informer has it, and nothing is kept
// twice. Where the specification is silent, answers are CoreDNS's, with
// which test/dnsoracle compares them.
//
// The server listens on the cluster address of the Service kube-system/kube-dns,
// which the node has on a link of its own (link.go): packets of pods are delivered
// without translation, whichever proxy serves Services. The Service carries the
// label of Services that another proxy serves, so that no proxy touches it.
//
// It imports internal/network/index and nothing else of this module.
package dns
