// Package namespace empties each terminating namespace, tells in its
// conditions what is left, and lets it go.
//
// It may import internal/controllers and client-go.
package namespace
