// Package serving serves the API server's handler over TLS: which TLS it speaks and
// with which certificates, where it listens, how long it waits for clients and how
// much it takes from them, and the headers that steer browsers and long-lived
// connections. It imports reload and nothing else of this project.
package serving
