// Package externalgrpc is a provider of node groups in another process, by the
// protocol of upstream's Cluster Autoscaler
// (cluster-autoscaler/cloudprovider/externalgrpc), over mutual TLS.
//
// wire.go has the messages that are used, by their field numbers: the protobuf library
// derives their descriptors from the tags.
package externalgrpc
