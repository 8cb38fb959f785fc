// Package serviceaccount keeps the service account "default" in each active
// namespace.
//
// It may import internal/controllers and client-go.
package serviceaccount
