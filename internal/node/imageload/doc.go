// Package imageload gives images from archives to a node's runtime: those of docker
// save, and OCI layouts. The runtime pulls them from a registry on loopback that lives
// as long as that takes, and containerd then has them under their own names.
package imageload
