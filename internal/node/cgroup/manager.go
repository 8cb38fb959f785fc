package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Mount is where Linux has its cgroups.
const Mount = "/sys/fs/cgroup"

// Manager makes and removes cgroups.
type Manager struct {
	// FS is the mount point: Mount, or a folder of a test; empty makes none.
	FS     string
	Driver Driver
	// V2 reports whether all controllers are in one hierarchy.
	V2 bool
	// slices makes slices with the systemd driver.
	slices slicer
	// hierarchies are the folders of those of cgroup v1, which once finds.
	hierarchies []string
	once        sync.Once
}

// slicer is the part of systemd that makes slices.
type slicer interface {
	// Apply makes a slice, or changes one, by systemd's names of properties.
	Apply(slice string, properties []property) error
	Remove(slice string) error
}

// None returns a manager that makes no cgroups, for tests of its users.
func None() *Manager { return &Manager{Driver: Cgroupfs} }

// New makes a manager for this machine.
func New(d Driver) (*Manager, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(Mount, &st); err != nil {
		return nil, fmt.Errorf("cgroups: %s: %w", Mount, err)
	}
	m := &Manager{FS: Mount, Driver: d, V2: st.Type == unix.CGROUP2_SUPER_MAGIC}
	if d == Systemd {
		m.slices = systemd{}
	}
	return m, nil
}

// controllers that cgroups of pods are made with, by hierarchy on cgroup v1.
var controllers = []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "hugetlb", "blkio", "devices", "freezer", "net_cls", "net_prio", "perf_event", "systemd"}

// Apply makes the cgroup, if it is not there, and gives it its resources.
func (m *Manager) Apply(n Name, r Resources) error {
	if m.FS == "" {
		return nil
	}
	if m.Driver == Systemd {
		if err := m.slices.Apply(n.Parent(Systemd), properties(r, m.V2)); err != nil {
			return fmt.Errorf("cgroup %s: %w", n.Parent(Systemd), err)
		}
	} else if err := m.make(n); err != nil {
		return err
	}
	return m.write(n, r)
}

// make makes the folders: one in each hierarchy on v1, one with its controllers
// on v2.
func (m *Manager) make(n Name) error {
	if m.V2 {
		return m.makeV2(n)
	}
	m.once.Do(func() {
		for _, c := range controllers {
			root, err := filepath.EvalSymlinks(filepath.Join(m.FS, c)) // cpu may lead to cpu,cpuacct
			if err == nil && !slices.Contains(m.hierarchies, root) {
				m.hierarchies = append(m.hierarchies, root)
			}
		}
	})
	parts := strings.Split(n.Path(m.Driver), "/")
	for _, root := range m.hierarchies {
		if err := makeV1(root, parts); err != nil {
			return err
		}
	}
	return nil
}

// makeV1 makes a folder of a hierarchy, and those above it that are not there.
func makeV1(root string, parts []string) error {
	dir := filepath.Join(root, filepath.Join(parts...))
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) && len(parts) > 1 {
		if err := makeV1(root, parts[:len(parts)-1]); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cgroup: %w", err)
	}
	if slices.Contains(strings.Split(filepath.Base(root), ","), "cpuset") {
		return inherit(filepath.Dir(dir), dir)
	}
	return nil
}

// inherit gives a new cpuset its parent's CPUs and memory nodes: without any it
// takes no process.
func inherit(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if b, err := os.ReadFile(filepath.Join(dir, file)); err != nil || strings.TrimSpace(string(b)) != "" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), b, 0o644); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	return nil
}

// makeV2 makes the folders, and has each one hand the controllers that it has
// down to its children.
func (m *Manager) makeV2(n Name) error {
	dir := m.FS
	for _, part := range strings.Split(n.Path(m.Driver), "/") {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		for _, c := range strings.Fields(string(b)) {
			// One that cannot be handed down is missed where it is needed.
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
		}
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	return nil
}

// setting is a file of a cgroup and what is written to it.
type setting struct{ controller, file, value string }

// Memory returns the memory, in bytes, that is used in a cgroup, and its limit, 0 for none.
func (m *Manager) Memory(n Name) (used, limit int64, err error) {
	if m.FS == "" {
		return 0, 0, nil
	}
	dir, usage, most := filepath.Join(m.FS, "memory", n.Path(m.Driver)), "memory.usage_in_bytes", "memory.limit_in_bytes"
	if m.V2 {
		dir, usage, most = filepath.Join(m.FS, n.Path(m.Driver)), "memory.current", "memory.max"
	}
	number := func(file string) int64 {
		b, readErr := os.ReadFile(filepath.Join(dir, file))
		text := strings.TrimSpace(string(b))
		if readErr != nil || text == "max" {
			err = errors.Join(err, readErr)
			return 0
		}
		n, parseErr := strconv.ParseInt(text, 10, 64)
		err = errors.Join(err, parseErr)
		return n
	}
	if used, limit = number(usage), number(most); limit > noLimit {
		limit = 0
	}
	return used, limit, err
}

// noLimit is less than what cgroup v1 has for no limit: the largest number of whole pages.
const noLimit = 1<<63 - 1<<20

// write writes the settings to the cgroup's files, but those that are there already. A
// controller that the machine lacks is passed over unless a limit asks for it.
func (m *Manager) write(n Name, r Resources) error {
	for _, s := range m.settings(r) {
		dir := filepath.Join(m.FS, n.Path(m.Driver))
		if !m.V2 {
			dir = filepath.Join(m.FS, s.controller, n.Path(m.Driver))
		}
		path := filepath.Join(dir, s.file)
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == s.value {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(s.value)
			err = errors.Join(err, f.Close())
		}
		switch {
		case err == nil:
		case errors.Is(err, fs.ErrNotExist) && (s.value == "max" || s.value == "-1" || s.value == "0"):
		case err != nil:
			return fmt.Errorf("cgroup: writing %s to %s: %w", s.value, path, err)
		}
	}
	return nil
}

// settings returns the files of either version for the resources, in the order in
// which they are to be written.
func (m *Manager) settings(r Resources) []setting {
	if r.OnlyPages {
		all := map[int64]int64{}
		for _, size := range pageSizes() {
			all[size] = 0
		}
		maps.Copy(all, r.HugePages)
		r.HugePages = all
	}
	if m.V2 {
		return settingsV2(r)
	}
	return settingsV1(r)
}

// pageSizes returns the sizes of huge pages that the machine has, in bytes.
func pageSizes() (out []int64) {
	const kilobytes = "/sys/kernel/mm/hugepages/hugepages-"
	found, _ := filepath.Glob(kilobytes + "*kB")
	for _, f := range found {
		if n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(f, kilobytes), "kB"), 10, 64); err == nil {
			out = append(out, n<<10)
		}
	}
	return out
}

func settingsV1(r Resources) []setting {
	var out []setting
	number := func(controller, file string, v int64) {
		if v != 0 {
			out = append(out, setting{controller, file, strconv.FormatInt(v, 10)})
		}
	}
	number("cpu", "cpu.shares", int64(r.CPUShares))
	if r.CPUQuota != 0 {
		number("cpu", "cpu.cfs_period_us", Period)
		number("cpu", "cpu.cfs_quota_us", r.CPUQuota)
	}
	number("memory", "memory.limit_in_bytes", r.Memory)
	if r.Pids != 0 {
		out = append(out, setting{"pids", "pids.max", limit(r.Pids)})
	}
	for size, bytes := range r.HugePages {
		out = append(out, setting{"hugetlb", "hugetlb." + pageName(size) + ".limit_in_bytes", strconv.FormatInt(bytes, 10)})
	}
	return out
}

func settingsV2(r Resources) []setting {
	var out []setting
	add := func(controller, file, value string) { out = append(out, setting{controller, file, value}) }
	if r.CPUShares != 0 {
		add("cpu", "cpu.weight", strconv.FormatUint(Weight(r.CPUShares), 10))
	}
	if r.CPUQuota != 0 {
		add("cpu", "cpu.max", fmt.Sprintf("%s %d", limit(r.CPUQuota), Period))
	}
	if r.Memory != 0 {
		add("memory", "memory.max", limit(r.Memory))
	}
	add("memory", "memory.min", strconv.FormatInt(r.Protection.Min, 10))
	add("memory", "memory.low", strconv.FormatInt(r.Protection.Low, 10))
	if r.Pids != 0 {
		add("pids", "pids.max", limit(r.Pids))
	}
	for size, bytes := range r.HugePages {
		add("hugetlb", "hugetlb."+pageName(size)+".max", strconv.FormatInt(bytes, 10))
	}
	return out
}

// Unified returns the settings of cgroup v2 as the runtime takes them for a
// container, by file name.
func Unified(p Protection, high int64) map[string]string {
	out := map[string]string{}
	for file, v := range map[string]int64{"memory.min": p.Min, "memory.low": p.Low, "memory.high": high} {
		if v != 0 {
			out[file] = strconv.FormatInt(v, 10)
		}
	}
	return out
}

// Swap reports whether the kernel counts swap for cgroups, so that it can be
// limited.
func (m *Manager) Swap() bool {
	file := filepath.Join(m.FS, "memory", "memory.memsw.limit_in_bytes")
	if m.V2 {
		file = filepath.Join(m.FS, Pods("").Path(m.Driver), "memory.swap.max")
	}
	_, err := os.Stat(file)
	return err == nil
}

func limit(v int64) string {
	if v == Unlimited {
		return "max"
	}
	return strconv.FormatInt(v, 10)
}

// pageName returns the kernel's name of a page size: 2MB, 1GB.
func pageName(size int64) string {
	units := []string{"B", "KB", "MB", "GB"}
	i := 0
	for ; size >= 1024 && size%1024 == 0 && i < len(units)-1; i++ {
		size /= 1024
	}
	return strconv.FormatInt(size, 10) + units[i]
}

// PageName returns the name of a page size as CRI has it.
func PageName(size int64) string { return pageName(size) }

// Remove removes the cgroup and those below it in each hierarchy. One that has
// processes stays.
func (m *Manager) Remove(n Name) error {
	if m.FS == "" {
		return nil
	}
	if m.Driver == Systemd {
		return m.slices.Remove(n.Parent(Systemd))
	}
	roots := []string{filepath.Join(m.FS, n.Path(m.Driver))}
	if !m.V2 {
		roots, _ = filepath.Glob(filepath.Join(m.FS, "*", n.Path(m.Driver)))
	}
	var errs []error
	for _, root := range roots {
		var found []string
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				found = append(found, p)
			}
			return nil
		})
		errs = append(errs, err)
		for i := len(found) - 1; i >= 0; i-- {
			if err := os.Remove(found[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// PodUIDs returns the pods that have a cgroup below n, by UID.
func (m *Manager) PodUIDs(n Name) map[string]Name {
	out := map[string]Name{}
	if m.FS == "" {
		return out
	}
	for _, class := range []Name{n, n.child("burstable"), n.child("besteffort")} {
		dir := filepath.Join(m.FS, class.Path(m.Driver))
		if !m.V2 {
			dir = filepath.Join(m.FS, "cpu", class.Path(m.Driver))
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := e.Name()
			if m.Driver == Systemd {
				name = strings.TrimSuffix(name[strings.LastIndexByte(name, '-')+1:], ".slice")
				name = strings.ReplaceAll(name, "_", "-")
			}
			if uid, ok := strings.CutPrefix(name, "pod"); ok && e.IsDir() {
				out[uid] = class.Pod(uid)
			}
		}
	}
	return out
}
