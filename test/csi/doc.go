// Package csi runs the CSI project's own tests and programs against Keelson: the
// sanity suite against the local driver, and the sidecars, unchanged, against a cluster
// with a node that runs containers. It is a module of its own, so that their modules
// are not linked into Keelson.
package csi
