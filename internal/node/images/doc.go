// Package images has the images that the binary carries, pause and demo, and
// serves them to the container runtime as a registry on loopback would.
package images
