// Package kubernetesservice keeps the Service default/kubernetes and the
// addresses of the API servers behind it.
package kubernetesservice
