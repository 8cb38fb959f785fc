// Package cloud runs an external cloud controller manager against Keelson: the
// unchanged application of k8s.io/cloud-provider, in a process of its own, with a
// cloud that is kept in the test. It is a module of its own: nothing else depends on
// that library.
package cloud
