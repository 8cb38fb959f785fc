// Package envtest lets keelson stand for the programs that controller-runtime's
// envtest starts, kube-apiserver, etcd and kubectl, which are links to the one
// binary. The API server keeps its objects itself; the etcd only answers the
// health checks and names the folder for them, so that they outlive an API
// server that is stopped and started again. It imports nothing of this module.
package envtest
