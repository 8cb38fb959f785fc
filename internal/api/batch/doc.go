// Package batch has the catalogue rows of the API group batch: Job and CronJob.
// It may import packages api, row, podspec and the published API libraries.
package batch
