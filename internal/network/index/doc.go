// Package index adds the indexes of informers that the packages of the network
// share: the EndpointSlices of a Service, by its name.
package index
