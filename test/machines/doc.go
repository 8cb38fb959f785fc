// Package machines tests a cluster of several machines: each is a network namespace
// with a runtime and a folder of its own. One of them has the server, the others have
// joined by a token; one is behind a router.
package machines
