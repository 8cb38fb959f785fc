// Package node is the node agent: it registers a node, reports its status, and
// runs the pods bound to it through a CRI runtime. Each pod has one worker,
// woken by the API's events, the runtime's events, probe results and timers;
// all it needs to know it can read back from the runtime, so that the agent
// may stop and start without a container noticing. It talks to the API server
// through client-go only, and may import its own subpackages and trace.
package node
