// Package server is the node agent's HTTP API, for the API server: logs, exec,
// attach, port-forward. It may import package node's interfaces, cri and logs.
package server
