// Package events has the catalogue rows of the API group events.k8s.io, whose Event is stored as the core group's.
// It may import packages api, row and the published API libraries.
package events
