// Package hardware reads from sysfs what CPUs and NUMA nodes the machine has
// (https://www.kernel.org/doc/Documentation/ABI/stable/sysfs-devices-system-cpu,
// sysfs-devices-node). It imports no other package of the node.
package hardware

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"
)

// CPU is a logical CPU, and what it is part of: each by the lowest logical CPU of it,
// but for the node.
type CPU struct{ ID, Core, Cache, Socket, Node int }

// Node is a NUMA node.
type Node struct {
	ID int
	// Memory is in bytes, HugePages as well, by the size of the pages.
	Memory    uint64
	HugePages map[uint64]uint64
	// Distances are those to the machine's nodes in ascending order, 10 to itself.
	Distances []uint64
}

// Machine is what a machine has. CPUs and nodes are in ascending order.
type Machine struct {
	CPUs  []CPU
	Nodes []Node
}

// NodeIDs returns the IDs of the nodes.
func (m *Machine) NodeIDs() []int {
	out := make([]int, len(m.Nodes))
	for i := range m.Nodes {
		out[i] = m.Nodes[i].ID
	}
	return out
}

// Distances returns those of each node.
func (m *Machine) Distances() map[int][]uint64 {
	out := map[int][]uint64{}
	for i := range m.Nodes {
		out[m.Nodes[i].ID] = m.Nodes[i].Distances
	}
	return out
}

// Read reads what the machine has from its sysfs, with so much memory in bytes where it
// has no NUMA nodes.
func Read(sys string, memory uint64) (*Machine, error) {
	m := &Machine{}
	online, err := list(filepath.Join(sys, "devices/system/cpu/online"))
	if err != nil {
		return nil, fmt.Errorf("the machine's CPUs: %w", err)
	}
	nodes, err := filepath.Glob(filepath.Join(sys, "devices/system/node/node[0-9]*"))
	if err != nil {
		return nil, err
	}
	nodeOf := map[int]int{}
	for _, dir := range nodes {
		n, err := readNode(dir)
		if err != nil {
			return nil, err
		}
		cpus, err := list(filepath.Join(dir, "cpulist"))
		if err != nil {
			return nil, fmt.Errorf("the CPUs of NUMA node %d: %w", n.ID, err)
		}
		for _, c := range cpus.UnsortedList() {
			nodeOf[c] = n.ID
		}
		m.Nodes = append(m.Nodes, n)
	}
	slices.SortFunc(m.Nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	if len(m.Nodes) == 0 {
		m.Nodes = []Node{{Memory: memory, HugePages: hugePages(filepath.Join(sys, "kernel/mm")), Distances: []uint64{10}}}
	}
	sockets := map[int]int{}
	for _, id := range online.List() {
		dir := filepath.Join(sys, "devices/system/cpu", "cpu"+strconv.Itoa(id))
		c := CPU{ID: id, Core: lowest(id, filepath.Join(dir, "topology/thread_siblings_list")), Node: nodeOf[id]}
		socket := 0
		if b, err := os.ReadFile(filepath.Join(dir, "topology/physical_package_id")); err == nil {
			if socket, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
				return nil, fmt.Errorf("the socket of CPU %d: %w", id, err)
			}
		}
		if _, ok := sockets[socket]; !ok {
			sockets[socket] = id
		}
		c.Socket = sockets[socket]
		c.Cache = lowest(c.Socket, filepath.Join(dir, "cache/index3/shared_cpu_list"))
		m.CPUs = append(m.CPUs, c)
	}
	return m, nil
}

// lowest returns the lowest of the CPUs in the file, or what there is without it.
func lowest(without int, file string) int {
	if s, err := list(file); err == nil && !s.IsEmpty() {
		return s.List()[0]
	}
	return without
}

func list(file string) (cpuset.CPUSet, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return cpuset.New(), err
	}
	return cpuset.Parse(strings.TrimSpace(string(b)))
}

func readNode(dir string) (Node, error) {
	id, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "node"))
	if err != nil {
		return Node{}, err
	}
	n := Node{ID: id, HugePages: hugePages(dir)}
	b, err := os.ReadFile(filepath.Join(dir, "meminfo"))
	if err != nil {
		return n, fmt.Errorf("the memory of NUMA node %d: %w", id, err)
	}
	for s := bufio.NewScanner(strings.NewReader(string(b))); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) >= 4 && f[2] == "MemTotal:" { // Node 0 MemTotal: 1024 kB
			kb, err := strconv.ParseUint(f[3], 10, 64)
			if err != nil {
				return n, fmt.Errorf("the memory of NUMA node %d: %w", id, err)
			}
			n.Memory = kb << 10
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "distance")); err == nil {
		for _, f := range strings.Fields(string(b)) {
			d, err := strconv.ParseUint(f, 10, 64)
			if err != nil {
				return n, fmt.Errorf("the distances of NUMA node %d: %w", id, err)
			}
			n.Distances = append(n.Distances, d)
		}
	}
	return n, nil
}

// hugePages returns the memory in huge pages by their size.
func hugePages(dir string) map[uint64]uint64 {
	out := map[uint64]uint64{}
	dirs, _ := filepath.Glob(filepath.Join(dir, "hugepages/hugepages-*kB"))
	for _, d := range dirs {
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(d), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(d, "nr_hugepages"))
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
			out[kb<<10] = n * kb << 10
		}
	}
	return out
}
