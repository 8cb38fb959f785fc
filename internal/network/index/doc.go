// Package index has the indexes that the packages of the network keep of their
// informers: the slices of a Service, by its name. They hold no copy of an
// object.
package index
