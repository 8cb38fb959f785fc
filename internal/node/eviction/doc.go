// Package eviction ends pods before a node runs out of what it cannot take back:
// those that use more local storage than their limits, and, while memory, disk
// or process IDs are short, pod after pod in the order of the kubelet's ranking
// (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/).
// It sees the node through the stats API's Summary only, and may import the API
// types and component-helpers.
package eviction
