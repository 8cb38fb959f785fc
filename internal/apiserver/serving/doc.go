// Package serving is what the API server's front door does beside the API: which
// TLS it speaks and with which certificates, where it listens, and the headers that
// steer browsers and long-lived connections. It imports reload and nothing else of
// this project.
package serving
