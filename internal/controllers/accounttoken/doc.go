// Package accounttoken fills the secrets of type
// kubernetes.io/service-account-token that users make for a ServiceAccount, and
// removes them with it.
//
// It may import internal/controllers and client-go.
package accounttoken
