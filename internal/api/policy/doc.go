// Package policy has the catalogue rows of the API group policy: PodDisruptionBudget.
// It may import packages api, row and the published API libraries.
package policy
