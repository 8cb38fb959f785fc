package stats

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroups reads cgroups below their mount point.
type cgroups struct {
	fs string
	v2 bool
}

// newCgroups looks at what is mounted at fs: in version 2 all controllers are in
// one hierarchy.
func newCgroups(fs string) cgroups {
	_, err := os.Stat(filepath.Join(fs, "cgroup.controllers"))
	return cgroups{fs: fs, v2: err == nil}
}

// dir returns the folder of a cgroup in the hierarchy of a controller.
func (c cgroups) dir(controller, path string) string {
	if c.v2 {
		return filepath.Join(c.fs, path)
	}
	return filepath.Join(c.fs, controller, path)
}

func (c cgroups) read(controller, path, file string) (string, bool) {
	b, err := os.ReadFile(filepath.Join(c.dir(controller, path), file))
	return strings.TrimSpace(string(b)), err == nil
}

func (c cgroups) number(controller, path, file string) (uint64, bool) {
	s, ok := c.read(controller, path, file)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// table reads a file of lines "name value".
func (c cgroups) table(controller, path, file string) map[string]uint64 {
	b, err := os.ReadFile(filepath.Join(c.dir(controller, path), file))
	if err != nil {
		return nil
	}
	return table(b)
}

func table(b []byte) map[string]uint64 {
	out := map[string]uint64{}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		name, v, ok := strings.Cut(s.Text(), " ")
		if n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64); ok && err == nil {
			out[name] = n
		}
	}
	return out
}

// cpu is the time that a cgroup has run, in nanoseconds.
type cpu struct {
	usage, user, system         uint64
	periods, throttled, stalled uint64 // of its quota; stalled in nanoseconds
	shares                      uint64
	period, quota               int64 // microseconds; quota -1 for none
}

// tick is the unit of the times in cpuacct.stat, in nanoseconds: Linux has 100 a second.
const tick = 1e9 / 100

func (c cgroups) cpu(path string) (out cpu, ok bool) {
	out.quota = -1
	if c.v2 {
		t := c.table("", path, "cpu.stat")
		if t == nil {
			return out, false
		}
		out.usage, out.user, out.system = t["usage_usec"]*1000, t["user_usec"]*1000, t["system_usec"]*1000
		out.periods, out.throttled, out.stalled = t["nr_periods"], t["nr_throttled"], t["throttled_usec"]*1000
		if w, ok := c.number("", path, "cpu.weight"); ok && w > 0 {
			out.shares = 2 + (w-1)*262142/9999 // KEP-2254
		}
		if s, ok := c.read("", path, "cpu.max"); ok {
			quota, period, _ := strings.Cut(s, " ")
			if n, err := strconv.ParseInt(quota, 10, 64); err == nil {
				out.quota = n
			}
			out.period, _ = strconv.ParseInt(period, 10, 64)
		}
		return out, true
	}
	if out.usage, ok = c.number("cpuacct", path, "cpuacct.usage"); !ok {
		return out, false
	}
	t := c.table("cpuacct", path, "cpuacct.stat")
	out.user, out.system = t["user"]*tick, t["system"]*tick
	t = c.table("cpu", path, "cpu.stat")
	out.periods, out.throttled, out.stalled = t["nr_periods"], t["nr_throttled"], t["throttled_time"]
	out.shares, _ = c.number("cpu", path, "cpu.shares")
	if s, ok := c.read("cpu", path, "cpu.cfs_quota_us"); ok {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			out.quota = n
		}
	}
	if n, ok := c.number("cpu", path, "cpu.cfs_period_us"); ok {
		out.period = int64(n)
	}
	return out, true
}

// memory is the memory use of a cgroup, in bytes; limit 0 is none.
type memory struct {
	usage, workingSet, rss, cache, mapped, swap, kernel, limit, peak uint64
	failures, faults, majorFaults, oom                               uint64
	activeFile, inactiveFile, reservation, swapLimit                 uint64
}

// unlimited is the least limit that stands for none: cgroup v1 rounds the
// largest number down to a page.
const unlimited = math.MaxInt64 / 2

func (c cgroups) memory(path string) (out memory, ok bool) {
	if c.v2 {
		t := c.table("", path, "memory.stat")
		if t == nil {
			return out, false
		}
		if out.usage, ok = c.number("", path, "memory.current"); !ok {
			// The root cgroup has no such file; anonymous memory and cache are
			// what the others' is made of.
			out.usage = t["anon"] + t["file"] + t["kernel"]
		}
		out.rss, out.cache, out.mapped, out.kernel = t["anon"], t["file"], t["file_mapped"], t["kernel"]
		out.faults, out.majorFaults = t["pgfault"], t["pgmajfault"]
		out.workingSet = less(out.usage, t["inactive_file"])
		out.activeFile, out.inactiveFile = t["active_file"], t["inactive_file"]
		out.reservation, _ = c.number("", path, "memory.low")
		out.swapLimit, _ = c.number("", path, "memory.swap.max")
		out.swap, _ = c.number("", path, "memory.swap.current")
		out.limit, _ = c.number("", path, "memory.max")
		out.peak, _ = c.number("", path, "memory.peak")
		e := c.table("", path, "memory.events")
		out.failures, out.oom = e["max"], e["oom_kill"]
		return out, true
	}
	if out.usage, ok = c.number("memory", path, "memory.usage_in_bytes"); !ok {
		return out, false
	}
	t := c.table("memory", path, "memory.stat")
	out.rss, out.cache, out.mapped, out.swap = t["total_rss"], t["total_cache"], t["total_mapped_file"], t["total_swap"]
	out.faults, out.majorFaults = t["total_pgfault"], t["total_pgmajfault"]
	out.workingSet = less(out.usage, t["total_inactive_file"])
	out.activeFile, out.inactiveFile = t["total_active_file"], t["total_inactive_file"]
	if l, ok := c.number("memory", path, "memory.soft_limit_in_bytes"); ok && l < unlimited {
		out.reservation = l
	}
	if l, ok := c.number("memory", path, "memory.memsw.limit_in_bytes"); ok && l < unlimited {
		out.swapLimit = l
	}
	out.kernel, _ = c.number("memory", path, "memory.kmem.usage_in_bytes")
	out.peak, _ = c.number("memory", path, "memory.max_usage_in_bytes")
	out.failures, _ = c.number("memory", path, "memory.failcnt")
	out.oom = c.table("memory", path, "memory.oom_control")["oom_kill"]
	if l, ok := c.number("memory", path, "memory.limit_in_bytes"); ok && l < unlimited {
		out.limit = l
	}
	return out, true
}

// pids returns how many processes and threads are in a cgroup, below it included.
func (c cgroups) pids(path string) (uint64, bool) { return c.number("pids", path, "pids.current") }

// pidLimit returns the limit of processes and threads, 0 if there is none.
func (c cgroups) pidLimit(path string) uint64 {
	n, _ := c.number("pids", path, "pids.max")
	return n
}

// child finds the cgroup of a container below its pod's: with the driver
// cgroupfs its name is the container's ID, with systemd the ID is in it.
func (c cgroups) child(pod, id string) (string, bool) {
	entries, err := os.ReadDir(c.dir("memory", pod))
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		if e.IsDir() && strings.Contains(e.Name(), id) {
			return filepath.Join(pod, e.Name()), true
		}
	}
	return "", false
}

// less is a-b, and 0 where b is the larger.
func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}
