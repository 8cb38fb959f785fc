// Package podspec fills in and checks pod specs, for pods and for the pod
// templates inside other kinds, and the volumes that pods use: the sources
// that pods and PersistentVolumes share, and claims. It may import package
// signername and the published API libraries.
package podspec
