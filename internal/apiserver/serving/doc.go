// Package serving is what the API server's front door does beside the API: which
// TLS it speaks, and the headers that steer browsers and long-lived connections.
// It imports nothing of this project.
package serving
