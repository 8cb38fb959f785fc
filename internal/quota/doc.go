// Package quota measures what objects use of a ResourceQuota, for admission
// and for the controller that keeps the quotas' status. It may import
// Kubernetes' types and package podspec.
package quota
