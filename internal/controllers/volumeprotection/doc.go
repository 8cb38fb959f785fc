// Package volumeprotection lets PersistentVolumeClaims and PersistentVolumes
// that are being deleted go when nothing uses them any more: it takes away the
// finalizers that admission gave them.
package volumeprotection
