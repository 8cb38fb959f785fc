// Package gateway tests that the Gateway API works on a cluster with what users install for
// it: the project's own definitions, unchanged, and a controller, which is a small one of
// this package, built on controller-runtime, that drives an nginx. It is in a module of its
// own, for these are no dependencies of Keelson.
package gateway
