package userns

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAllocator(t *testing.T) {
	dir := t.TempDir()
	for _, uid := range []string{"a", "b", "c"} {
		if err := os.Mkdir(filepath.Join(dir, uid), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	host := func(a *Allocator, uid string) uint32 {
		t.Helper()
		n, err := a.Pod(uid)
		if err != nil {
			t.Fatal(err)
		}
		if len(n.Uids) != 1 || n.Uids[0].ContainerId != 0 || n.Uids[0].Length != 65536 || n.Gids[0].HostId != n.Uids[0].HostId {
			t.Fatalf("mapping: %v", n)
		}
		return n.Uids[0].HostId
	}
	first := &Allocator{Pods: dir}
	a, b := host(first, "a"), host(first, "b")
	if a == b || a < 65536 || b < 65536 || a%65536 != 0 {
		t.Errorf("ranges from %d and %d", a, b)
	}
	next := &Allocator{Pods: dir} // the agent after this one
	if got := host(next, "a"); got != a {
		t.Errorf("the pod's range was %d and is %d", a, got)
	}
	if c := host(next, "c"); c == a || c == b {
		t.Errorf("a range is given twice: %d", c)
	}
	if err := os.WriteFile(filepath.Join(dir, "b", file), []byte(`{"uidMappings":[{"hostId":0,"containerId":0,"length":65536}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := next.Pod("b"); err == nil {
		t.Error("the machine's own IDs are given to a pod")
	}
}
