// Package legacytoken marks generated tokens in Secrets as invalid when they have
// not been used for a year, and deletes them a year later (KEP-2799). The API server
// records the last use of a token in a label of its Secret.
package legacytoken
