// Package apiserver is the HTTP side of the API: authentication, authorization,
// decoding, and the generic verbs over the rows of the catalogue, on a store. It
// knows no particular resource outside the table of handlers (handlers.go),
// which has the subresources that compute their answers. It may import packages
// api, store and trace, and leaf packages of k8s.io/apiserver.
package apiserver
