// Package logs reads containers' logs in CRI's format.
package logs
