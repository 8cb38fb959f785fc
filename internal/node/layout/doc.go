// Package layout names the files that a node keeps of its pods: upstream's, so
// that log collectors and storage drivers find them.
package layout
