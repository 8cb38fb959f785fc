// Package downward gives containers values of their pod's fields
// (https://kubernetes.io/docs/concepts/workloads/pods/downward-api/). It may
// import the API types only.
package downward
