// Package apiregistration has the rows of apiregistration.k8s.io: the
// APIServices that say which server serves a group version. It may import
// packages api and row, and k8s.io/kube-aggregator's types and validation.
package apiregistration
