// Package conformance tests what upstream's conformance tests require, by tests
// of our own, each under its codename (testdata/tests-v1.37.tsv). They run
// against any cluster, through a kubeconfig and client libraries only:
//
//	go test ./test/conformance -args -kubeconfig ~/.kube/config
//
// Without a kubeconfig they start a cluster with simulated nodes in their own
// process, and, as root, one of a node that runs containers for the tests that
// need these, and one of three such nodes, in network namespaces, for those of the
// network.
//
// The tests themselves use client libraries and nothing of internal.
package conformance
