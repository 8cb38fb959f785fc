// Package bootstraptoken keeps bootstrap tokens: it signs the ConfigMap
// cluster-info with each that may, and removes those that have expired:
// https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
//
// It may import internal/controllers and client-go.
package bootstraptoken
