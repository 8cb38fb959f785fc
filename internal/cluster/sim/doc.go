// Package sim runs simulated nodes: each registers itself, keeps its lease, and
// takes the pods bound to it through their stages on a clock, so that the
// control plane cannot distinguish it from a machine. It may import client-go.
package sim
