// Package csi runs the CSI project's own tests and programs against Keelson: the
// sanity suite against the local driver. It is a module of its own, so that what
// they need is not linked into Keelson.
package csi
