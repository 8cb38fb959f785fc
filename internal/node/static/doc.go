// Package static reads static pods: the manifests in a folder of the node, which
// run whether there is an API server or not
// (https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/). It may
// import the API types and internal/api/podspec, for defaults and validation.
package static
