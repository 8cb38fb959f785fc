// Package stats measures what a node and its pods use, for the kubelet's stats
// API (k8s.io/kubelet/pkg/apis/stats/v1alpha1), for its metrics of resources and
// containers, and for evictions. It reads the kernel's cgroups (v1 and v2), file
// systems and /proc, and asks the CRI runtime for its containers. It may import
// packages cri and hardware.
package stats
