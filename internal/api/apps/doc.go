// Package apps has the rows of apps/v1. It may import packages api, row and
// podspec.
package apps
