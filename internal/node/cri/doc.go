// Package cri is the node agent's way to the container runtime: one gRPC
// connection to the runtime's unix socket, and the runtime's events with a
// relist where it has none. It may import cri-api and grpc, and nothing of
// Keelson.
package cri
