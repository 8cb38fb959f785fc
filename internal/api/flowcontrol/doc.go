// Package flowcontrol has the catalogue rows of the API group flowcontrol.apiserver.k8s.io.
// It may import packages api, row, the published API libraries and the API
// server library's packages of what every cluster has and of shuffle sharding.
package flowcontrol
