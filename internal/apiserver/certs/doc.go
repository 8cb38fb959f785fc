// Package certs makes and keeps what a cluster's parts prove themselves with:
// a CA, serving and client certificates, the key that signs service accounts'
// tokens, and kubeconfig files. It may import the standard library and
// client-go's clientcmd.
package certs
