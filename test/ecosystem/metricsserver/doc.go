// Package metricsserver runs metrics-server, unchanged and by its own manifests, as a pod
// of a node that runs containers. KEELSON, in the environment, names the binary, whose
// kubectl it uses.
package metricsserver
