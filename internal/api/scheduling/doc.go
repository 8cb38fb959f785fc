// Package scheduling has the catalogue rows of the API group scheduling.k8s.io: PriorityClass.
// It may import packages api, row and the published API libraries.
package scheduling
