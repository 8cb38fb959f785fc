// Package serviceip gives Services their cluster addresses and node ports: an
// allocator in memory, built from the Services that there are. It may import
// Kubernetes' types.
package serviceip
