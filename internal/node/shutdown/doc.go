// Package shutdown ends a node's pods before its machine shuts down: it delays the
// shutdown by an inhibitor of systemd-logind, and meanwhile ends the pods in the order of
// their priorities
// (https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/). It may
// import podspec and statefile.
package shutdown
