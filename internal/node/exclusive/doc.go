// Package exclusive gives containers what they have for themselves: it puts together the
// managers of CPUs, memory and devices, and what decides on which NUMA nodes all of it is.
// It may import cpumanager, deviceplugin, hardware, memorymanager and topology.
package exclusive
