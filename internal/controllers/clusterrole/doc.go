// Package clusterrole fills the rules of each ClusterRole with an aggregation
// rule with those of the roles that it selects.
//
// It may import internal/controllers, internal/apiserver/authz and client-go.
package clusterrole
