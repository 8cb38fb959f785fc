// Package component is what the parts of a cluster share that may run in a process
// of their own: how they reach the API server, what they end with, their informers
// and events, and the election of the process that runs them.
//
// It may import client-go, packages api/catalogue and trace.
package component
