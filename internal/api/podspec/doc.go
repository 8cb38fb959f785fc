// Package podspec fills in and checks pod specs, for pods and for the pod
// templates inside other kinds. It may import the published API libraries only.
package podspec
