// Package envtest runs controller-runtime's envtest, unchanged, on keelson: the
// folder of KUBEBUILDER_ASSETS is one of keelson envtest. It is a module of its own,
// as operators' are, and imports nothing of keelson.
package envtest
