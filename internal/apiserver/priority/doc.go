// Package priority has requests wait for their turn by FlowSchemas and
// PriorityLevelConfigurations, and keeps those of these objects that a cluster
// is to have (KEP-1040). The queues are package fairqueue's.
package priority
