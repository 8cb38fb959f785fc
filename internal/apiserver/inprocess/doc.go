// Package inprocess gives the components of one process their ordinary
// client-go clients and informers without a network between: clients call the
// API server's handler, and informers read the store itself and hold its
// objects. It may import packages apiserver, api and store.
package inprocess
