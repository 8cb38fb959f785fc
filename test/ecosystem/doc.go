// Package ecosystem runs other projects' programs, unchanged, against the binary: the
// Vertical Pod Autoscaler, and an adapter that sigs.k8s.io/custom-metrics-apiserver makes.
// Below it, package metricsserver runs metrics-server on a node that runs containers.
// It is a module of its own: nothing else depends on theirs. KEELSON, in the environment,
// names the binary. The programs of the Vertical Pod Autoscaler are built in a module below
// it, with the versions that they need.
package ecosystem
