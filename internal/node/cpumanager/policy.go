package cpumanager

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"k8s.io/utils/cpuset"

	"keelson.dev/keelson/internal/node/hardware"
	"keelson.dev/keelson/internal/node/topology"
)

// The policies.
const (
	None   = "none"
	Static = "static"
)

// options are those of the static policy that are stable, or beta and on.
type options struct {
	// fullCores has containers have whole cores only.
	fullCores bool
	// distribute has CPUs be taken evenly from the nodes where one does not have enough.
	distribute bool
	// strict keeps the reserved CPUs from containers that share theirs.
	strict bool
	// caches has CPUs be taken that share a cache.
	caches bool
}

// parse reads the options of a policy.
func parse(policy string, values map[string]string) (options, error) {
	var o options
	known := map[string]*bool{"full-pcpus-only": &o.fullCores, "distribute-cpus-across-numa": &o.distribute, "strict-cpu-reservation": &o.strict, "prefer-align-cpus-by-uncorecache": &o.caches}
	alpha := []string{"align-by-socket", "distribute-cpus-across-cores"}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch to := known[name]; {
		case policy != Static:
			return o, fmt.Errorf("[cpumanager] %s policy: no options are supported", policy)
		case slices.Contains(alpha, name):
			return o, fmt.Errorf("CPU Manager Policy Alpha-level Options not enabled, but option %q provided", name)
		case to == nil:
			return o, fmt.Errorf("unknown CPU Manager Policy option: %q", name)
		default:
			var err error
			if *to, err = strconv.ParseBool(values[name]); err != nil {
				return o, fmt.Errorf("bad value for option %q: %w", name, err)
			}
		}
	}
	if o.caches && o.distribute {
		return o, fmt.Errorf("static policy options prefer-align-cpus-by-uncorecache and distribute-cpus-across-numa can not be used at the same time")
	}
	return o, nil
}

// chooser chooses CPUs of a machine.
type chooser struct {
	cpus map[int]hardware.CPU
	// levels are what CPUs are parts of, from the largest parts to the single CPU.
	levels []func(hardware.CPU) int
	// whole is how many CPUs the part of each level and number has.
	whole []map[int]int
	// perCore is how many CPUs a core has.
	perCore int
	nodes   []int
}

func newChooser(m *hardware.Machine, caches bool) *chooser {
	c := &chooser{cpus: map[int]hardware.CPU{}, nodes: m.NodeIDs()}
	sockets, cores := map[int]bool{}, map[int]bool{}
	for _, cpu := range m.CPUs {
		c.cpus[cpu.ID] = cpu
		sockets[cpu.Socket], cores[cpu.Core] = true, true
	}
	socket, node := func(c hardware.CPU) int { return c.Socket }, func(c hardware.CPU) int { return c.Node }
	// A node may hold several sockets, or a socket several nodes.
	c.levels = append(c.levels, node, socket)
	if len(sockets) < len(c.nodes) {
		c.levels = append(c.levels[:0], socket, node)
	}
	if caches {
		c.levels = append(c.levels, func(c hardware.CPU) int { return c.Cache })
	}
	c.levels = append(c.levels, func(c hardware.CPU) int { return c.Core }, func(c hardware.CPU) int { return c.ID })
	for _, level := range c.levels {
		whole := map[int]int{}
		for _, cpu := range m.CPUs {
			whole[level(cpu)]++
		}
		c.whole = append(c.whole, whole)
	}
	c.perCore = max(1, len(c.cpus)/max(1, len(cores)))
	return c
}

// all returns all CPUs.
func (c *chooser) all() cpuset.CPUSet { return cpuset.New(slices.Collect(maps.Keys(c.cpus))...) }

// on returns those of the CPUs that are of the nodes.
func (c *chooser) on(cpus cpuset.CPUSet, nodes topology.Mask) cpuset.CPUSet {
	return c.filter(cpus, func(cpu hardware.CPU) bool { return nodes.Has(cpu.Node) })
}

func (c *chooser) filter(cpus cpuset.CPUSet, keep func(hardware.CPU) bool) cpuset.CPUSet {
	var out []int
	for _, id := range cpus.UnsortedList() {
		if keep(c.cpus[id]) {
			out = append(out, id)
		}
	}
	return cpuset.New(out...)
}

// siblings returns the CPUs and all others of their cores.
func (c *chooser) siblings(cpus cpuset.CPUSet) cpuset.CPUSet {
	cores := map[int]bool{}
	for _, id := range cpus.UnsortedList() {
		cores[c.cpus[id].Core] = true
	}
	return c.filter(c.all(), func(cpu hardware.CPU) bool { return cores[cpu.Core] })
}

// take chooses n of the free CPUs such that they have as much in common as they can, and
// leave the largest parts whole for others: whole parts of each level, from the largest
// down, and within a level those first that are beside what was taken, then those of the
// parts that are in use the most.
func (c *chooser) take(free cpuset.CPUSet, n int) (cpuset.CPUSet, error) {
	if free.Size() < n {
		return cpuset.New(), fmt.Errorf("not enough cpus available to satisfy request: requested=%d, available=%d", n, free.Size())
	}
	var taken []int
	for level := range c.levels {
		for {
			part := c.best(level, free, taken, n-len(taken))
			if part == nil {
				break
			}
			taken = append(taken, part...)
			free = free.Difference(cpuset.New(part...))
		}
	}
	return cpuset.New(taken...), nil
}

// best returns the CPUs of the best part of the level that is free as a whole and has no
// more than n CPUs, nil if there is none.
func (c *chooser) best(level int, free cpuset.CPUSet, taken []int, n int) []int {
	parts := map[int][]int{}
	for _, id := range free.List() {
		part := c.levels[level](c.cpus[id])
		parts[part] = append(parts[part], id)
	}
	// How many CPUs of each larger part are free, and taken.
	freeIn, takenIn := make([]map[int]int, level), make([]map[int]int, level)
	for l := range level {
		freeIn[l], takenIn[l] = map[int]int{}, map[int]int{}
		for _, id := range free.UnsortedList() {
			freeIn[l][c.levels[l](c.cpus[id])]++
		}
		for _, id := range taken {
			takenIn[l][c.levels[l](c.cpus[id])]++
		}
	}
	var best []int
	better := func(a, b hardware.CPU) bool {
		for l := range level {
			x, y := c.levels[l](a), c.levels[l](b)
			if x == y {
				continue
			}
			if takenIn[l][x] != takenIn[l][y] {
				return takenIn[l][x] > takenIn[l][y]
			}
			if freeIn[l][x] != freeIn[l][y] {
				return freeIn[l][x] < freeIn[l][y]
			}
		}
		return a.ID < b.ID
	}
	for part, cpus := range parts {
		if len(cpus) == c.whole[level][part] && len(cpus) <= n && (best == nil || better(c.cpus[cpus[0]], c.cpus[best[0]])) {
			best = cpus
		}
	}
	return best
}

// spread chooses n of the free CPUs evenly from as few nodes as have enough, in groups of
// so many CPUs; like take where no number of nodes allows for that.
func (c *chooser) spread(free cpuset.CPUSet, n, group int) (cpuset.CPUSet, error) {
	if n%group == 0 {
		for size := 1; size <= len(c.nodes); size++ {
			if out, ok := c.spreadOver(free, n, group, size); ok {
				return out, nil
			}
		}
	}
	return c.take(free, n)
}

// spreadOver chooses from so many nodes, of all sets of them that of which most is left
// on each.
func (c *chooser) spreadOver(free cpuset.CPUSet, n, group, size int) (cpuset.CPUSet, bool) {
	each := n / group / size * group
	over := (n - each*size) / group // nodes that give a group more
	var best []int
	least := -1
	topology.Each(c.nodes, func(mask topology.Mask) {
		if mask.Count() != size || each == 0 {
			return
		}
		nodes := mask.Nodes()
		left := func(node int) int { return c.on(free, topology.MaskOf(node)).Size() }
		slices.SortStableFunc(nodes, func(a, b int) int { return left(b) - left(a) })
		most := -1 // what is left where least is
		for i, node := range nodes {
			want := each
			if i < over {
				want += group
			}
			rest := left(node) - want
			if rest < 0 {
				return
			}
			if most < 0 || rest < most {
				most = rest
			}
		}
		if most > least {
			best, least = nodes, most
		}
	})
	if best == nil {
		return cpuset.New(), false
	}
	out := cpuset.New()
	for i, node := range best {
		want := each
		if i < over {
			want += group
		}
		cpus, err := c.take(c.on(free, topology.MaskOf(node)), want)
		if err != nil {
			return out, false
		}
		out = out.Union(cpus)
	}
	return out, true
}
