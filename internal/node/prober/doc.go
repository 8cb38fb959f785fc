// Package prober runs the probes of containers: exec, HTTP, TCP and gRPC, one
// at a time (Probe.Once) or on their schedule with thresholds (Probe.Watch).
// It knows nothing of the runtime: exec is a function it is given. It may
// import client-go's types and grpc, and nothing of Keelson.
package prober
