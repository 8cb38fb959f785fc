// Package layers has no code of its own. Its test holds the order of the
// packages that docs/architecture.md lists: a package imports only packages of
// its own layer and of those below it, and production code imports nothing of
// the tests'.
package layers
