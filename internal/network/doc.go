// Package network has what the service proxy, DNS and network policies share:
// indexes of the informers that they read.
package network
