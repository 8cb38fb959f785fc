package heap

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// available returns how much memory the process may still take, in bytes: what the
// machine has available, or what is left of the limit of the process's cgroup; 0 where
// neither can be read.
func available() uint64 { return room("/") }

// room is available on the system at root.
func room(root string) uint64 {
	left := meminfo(filepath.Join(root, "proc/meminfo"))
	for _, f := range limits(root) {
		limit, ok := number(f.limit)
		used, known := number(f.used)
		if ok && known && limit > 0 {
			left = min(left, limit-min(used, limit))
		}
	}
	return left
}

// meminfo returns the MemAvailable of a /proc/meminfo in bytes.
func meminfo(file string) uint64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) >= 2 && f[0] == "MemAvailable:" {
			kilobytes, _ := strconv.ParseUint(f[1], 10, 64)
			return kilobytes << 10
		}
	}
	return 0
}

// bound are the files of a cgroup's limit and of what is used of it.
type bound struct{ limit, used string }

// limits returns the bounds of the process's cgroup and of those that it is in, by
// version 2 or 1 of cgroups.
func limits(root string) (out []bound) {
	data, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, limit, used := "sys/fs/cgroup", "memory.max", "memory.current"
		switch {
		case parts[1] == "memory":
			mount, limit, used = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
		case parts[1] != "":
			continue
		}
		for dir := filepath.Clean("/" + parts[2]); ; dir = filepath.Dir(dir) {
			at := filepath.Join(root, mount, dir)
			out = append(out, bound{filepath.Join(at, limit), filepath.Join(at, used)})
			if dir == "/" {
				break
			}
		}
	}
	return out
}

// number reads a file with a number; false where there is none, or "max".
func number(file string) (uint64, bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}
