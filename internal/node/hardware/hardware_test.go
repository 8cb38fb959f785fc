package hardware

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRead reads a machine of two sockets, each a node with a core of two threads, whose
// numbers alternate; CPU 4 is offline.
func TestRead(t *testing.T) {
	sys := t.TempDir()
	write(t, sys, map[string]string{
		"devices/system/cpu/online":                                         "0-3",
		"devices/system/cpu/cpu0/topology/thread_siblings_list":             "0,2",
		"devices/system/cpu/cpu1/topology/thread_siblings_list":             "1,3",
		"devices/system/cpu/cpu2/topology/thread_siblings_list":             "0,2",
		"devices/system/cpu/cpu3/topology/thread_siblings_list":             "1,3",
		"devices/system/cpu/cpu0/topology/physical_package_id":              "0",
		"devices/system/cpu/cpu1/topology/physical_package_id":              "1",
		"devices/system/cpu/cpu2/topology/physical_package_id":              "0",
		"devices/system/cpu/cpu3/topology/physical_package_id":              "1",
		"devices/system/cpu/cpu3/cache/index3/shared_cpu_list":              "1,3",
		"devices/system/node/node0/cpulist":                                 "0,2,4",
		"devices/system/node/node1/cpulist":                                 "1,3",
		"devices/system/node/node0/meminfo":                                 "Node 0 MemTotal:       1024 kB\nNode 0 MemFree:        5 kB",
		"devices/system/node/node1/meminfo":                                 "Node 1 MemTotal:       2048 kB",
		"devices/system/node/node0/distance":                                "10 21",
		"devices/system/node/node1/distance":                                "21 10",
		"devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages": "3",
	})
	got, err := Read(sys, 7)
	if err != nil {
		t.Fatal(err)
	}
	want := &Machine{
		CPUs: []CPU{{0, 0, 0, 0, 0}, {1, 1, 1, 1, 1}, {2, 0, 0, 0, 0}, {3, 1, 1, 1, 1}},
		Nodes: []Node{{ID: 0, Memory: 1 << 20, HugePages: map[uint64]uint64{}, Distances: []uint64{10, 21}},
			{ID: 1, Memory: 2 << 20, HugePages: map[uint64]uint64{2 << 20: 6 << 20}, Distances: []uint64{21, 10}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestReadWithout reads a machine whose sysfs has no nodes, sockets and cores.
func TestReadWithout(t *testing.T) {
	sys := t.TempDir()
	write(t, sys, map[string]string{"devices/system/cpu/online": "0-1"})
	got, err := Read(sys, 7)
	if err != nil {
		t.Fatal(err)
	}
	if want := []CPU{{0, 0, 0, 0, 0}, {1, 1, 0, 0, 0}}; !reflect.DeepEqual(got.CPUs, want) || len(got.Nodes) != 1 || got.Nodes[0].Memory != 7 {
		t.Errorf("got %+v", got)
	}
	if _, err := Read(t.TempDir(), 0); err == nil {
		t.Error("a machine without CPUs")
	}
}

// TestReadHere reads this machine.
func TestReadHere(t *testing.T) {
	m, err := Read("/sys", 1)
	if err != nil || len(m.CPUs) == 0 || len(m.Nodes) == 0 || m.Nodes[0].Memory == 0 {
		t.Errorf("%+v, %v", m, err)
	}
}
