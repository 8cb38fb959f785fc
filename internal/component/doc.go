// Package component has what the components that may run in a process of their own
// share: the client of the API server, informers, events, goroutines that end
// together, and leader election.
//
// It may import client-go, packages api/catalogue and trace.
package component
