// Package node is the node agent: it puts together what registers a node and
// reports its status (report), what runs the pods bound to it through a CRI runtime
// (pod), and what keeps the machine in order: evictions, image garbage collection,
// log rotation, the removal of what is left of pods, static pods. It talks to the
// API server through client-go only, and may import its own subpackages, which do
// not import it, and trace.
package node
