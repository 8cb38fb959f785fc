// Package flowcontrol has the catalogue rows of the API group flowcontrol.apiserver.k8s.io.
// It may import packages api, row and the published API libraries.
package flowcontrol
