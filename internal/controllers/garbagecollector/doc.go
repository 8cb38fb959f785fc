// Package garbagecollector deletes objects whose owners are gone, and carries
// out foreground and orphaning deletion. It keeps a graph of all objects that
// can be deleted, one small node each: identity, owners, dependents, and no
// other part of the object. Where an informer for a resource exists it listens
// to that; other resources are watched as metadata, and not cached.
//
// It may import internal/controllers and client-go.
package garbagecollector
