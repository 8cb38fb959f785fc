// Package replicaset keeps as many pods as each ReplicaSet and each
// ReplicationController asks for.
package replicaset
