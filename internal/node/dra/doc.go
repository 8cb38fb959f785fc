// Package dra calls drivers to prepare the devices of ResourceClaims before the
// containers of a pod start, and to give them back after they have ended (KEP-4381).
// What was prepared is kept in a file, so that it is given back whatever happens to the
// agent or the claim meanwhile.
package dra
