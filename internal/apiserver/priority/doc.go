// Package priority makes requests wait for their turn by FlowSchemas and
// PriorityLevelConfigurations, and maintains the mandatory and suggested ones of
// these objects (KEP-1040). The queues are package fairqueue's.
package priority
