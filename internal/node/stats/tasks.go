package stats

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tasks is what /proc tells of the processes of a cgroup, and of those below it.
type tasks struct {
	processes, descriptors, sockets uint64
	// states are the numbers of processes by cAdvisor's name of their state.
	states map[string]uint64
	// openFiles is the first process's soft limit of descriptors.
	openFiles uint64
}

// taskStates are cAdvisor's names of the states of processes.
var taskStates = map[byte]string{'S': "sleeping", 'I': "sleeping", 'R': "running", 'T': "stopped", 't': "stopped", 'D': "uninterruptible"}

func (c cgroups) tasks(path string) tasks {
	out := tasks{states: map[string]uint64{"sleeping": 0, "running": 0, "stopped": 0, "uninterruptible": 0, "iowaiting": 0}}
	_ = filepath.WalkDir(c.dir("pids", path), func(p string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil //nolint:nilerr // a cgroup may be removed meanwhile
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return nil //nolint:nilerr // so may this one
		}
		for pid := range strings.FieldsSeq(string(b)) {
			out.add("/proc/" + pid)
		}
		return nil
	})
	return out
}

// add adds a process, which may have ended.
func (t *tasks) add(proc string) {
	t.processes++
	if b, err := os.ReadFile(filepath.Join(proc, "stat")); err == nil {
		if i := bytes.LastIndexByte(b, ')'); i >= 0 && i+2 < len(b) {
			if s := taskStates[b[i+2]]; s != "" {
				t.states[s]++
			}
		}
	}
	if t.openFiles == 0 {
		b, _ := os.ReadFile(filepath.Join(proc, "limits"))
		for l := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(l, "Max open files"); ok {
				t.openFiles, _ = strconv.ParseUint(strings.Fields(rest + " 0")[0], 10, 64)
			}
		}
	}
	dir, err := os.Open(filepath.Join(proc, "fd"))
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	t.descriptors += uint64(len(names))
	for _, n := range names {
		if to, err := os.Readlink(filepath.Join(proc, "fd", n)); err == nil && strings.HasPrefix(to, "socket:") {
			t.sockets++
		}
	}
}
