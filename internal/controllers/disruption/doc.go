// Package disruption keeps the status of PodDisruptionBudgets, by which the API
// server decides whether a pod may be evicted, and takes back a pod's condition
// DisruptionTarget if the pod is not deleted after all.
//
// What a budget's percentages are of, and maxUnavailable, is the sum of the
// replicas that the controllers of its pods want. The controllers of apps/v1 and
// ReplicationControllers are read from caches, all others by their subresource
// scale (KEP-85).
package disruption
