// Package statefulset keeps the pods of StatefulSets: each has a name and claims of
// its own, which it keeps when it is replaced, and they come and go in order.
//
// It may import internal/controllers and its package history, and client-go.
package statefulset
