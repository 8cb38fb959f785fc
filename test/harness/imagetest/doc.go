// Package imagetest makes container images of this machine's programs, for tests, and
// serves them to its container runtime.
package imagetest
