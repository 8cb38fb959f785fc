// Package deviceplugin gives containers the devices of device plug-ins: it takes their
// registrations, watches which devices they have and how these are, and asks them to
// make devices ready (https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/).
// What it has given is kept in a file, for the agent after this one. It may import
// podspec, statefile and topology.
package deviceplugin
