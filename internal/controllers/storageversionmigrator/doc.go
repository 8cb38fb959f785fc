// Package storageversionmigrator rewrites the stored objects of a resource, so
// that each is stored in the resource's present version and under the present
// encryption key (KEP-4192). It may import package controllers.
package storageversionmigrator
