// Package serviceresolver finds where a Service is reached: for webhooks that
// are named by their Service, and for aggregated API servers. It may import
// leaf packages of k8s.io/apiserver and client-go's informers.
package serviceresolver
