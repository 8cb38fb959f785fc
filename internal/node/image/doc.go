// Package image has the runtime pull the images of pods: as their policies say,
// with the credentials of their secrets, and with growing pauses after failures.
package image
