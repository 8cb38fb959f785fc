// Package legacytoken marks the generated tokens in Secrets that nobody has used for
// a year as invalid, and deletes them when a year later nobody has missed them
// (KEP-2799). When a token was last used, the API server writes on its Secret.
package legacytoken
