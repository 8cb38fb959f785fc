// Package authz decides by RBAC what a user may do, guards against escalation,
// and has upstream's bootstrap policy. It reads roles and bindings from
// listers. It may import Kubernetes' types and client-go's listers.
package authz
