// Package rowtest runs the rows of the catalogue in tests: defaults,
// preparation, validation and warnings of objects written in YAML, in the
// order in which the API server calls them. It may import package api.
package rowtest
