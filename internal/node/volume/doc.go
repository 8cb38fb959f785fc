// Package volume makes the volumes of a node's pods: emptyDir, configMap,
// secret, projected, downwardAPI, hostPath. It may import client-go and package
// node's downward API helpers.
package volume
