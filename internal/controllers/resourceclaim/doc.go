// Package resourceclaim makes the ResourceClaims of pods whose claims are made
// from a template, reserves allocated claims for pods that did not come by the
// scheduler, and takes claims back: a reservation ends with its pod, an
// allocation with its last reservation, a generated claim with its pod (KEP-4381).
package resourceclaim
