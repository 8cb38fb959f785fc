// Package accounttoken fills the secrets of type
// kubernetes.io/service-account-token, which somebody has made for a
// ServiceAccount, and removes them with it.
//
// It may import internal/controllers and client-go.
package accounttoken
