// Package server is the node agent's HTTP API: logs, exec, attach, port-forward. Its
// callers, the API server among them, are authenticated and authorized as a kubelet's
// are. It may import package node's interfaces, cri, logs, and leaf packages of
// k8s.io/apiserver.
package server
