// Package nodemetrics counts what a node agent does, by the names of the
// kubelet's metrics. It imports the Prometheus client only.
package nodemetrics
