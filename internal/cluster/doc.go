// Package cluster assembles a cluster in one process: store, API server,
// controllers, scheduler, simulated nodes. It holds wiring and what a cluster
// has from its first start, and no logic of the parts. It may import every
// package of the layers below.
package cluster
