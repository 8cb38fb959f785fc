// Package imagegc removes images that no container uses: the ones unused for the
// longest time first, when the file system of the images is nearly full, and all
// of them where evictions would begin otherwise
// (https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images).
// It sees the CRI runtime only.
package imagegc
