package heap

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestPace checks how far a heap may grow over a sequence of collections.
func TestPace(t *testing.T) {
	const mb = 1 << 20
	type step struct {
		after time.Duration
		live  uint64
		spare uint64
		want  int
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"small heaps may grow by the least growth", []step{{0, 0, 0, 50}, {time.Minute, 1 * mb, 0, 1000}, {time.Minute, 32 * mb, 0, 100}, {time.Minute, 200 * mb, 0, 50}}},
		{"a burst grows up to the most, and ends step by step", []step{
			{0, 200 * mb, 8000 * mb, 50}, {time.Second, 200 * mb, 8000 * mb, 200}, {time.Second, 200 * mb, 8000 * mb, 400},
			{time.Second, 200 * mb, 8000 * mb, 400}, {10 * time.Second, 200 * mb, 8000 * mb, 400}, {16 * time.Second, 200 * mb, 8000 * mb, 200},
			{time.Minute, 200 * mb, 8000 * mb, 100}, {time.Minute, 200 * mb, 8000 * mb, 50}, {time.Minute, 200 * mb, 8000 * mb, 50},
		}},
		{"a burst takes a quarter of what the machine has", []step{
			{0, 200 * mb, 1600 * mb, 50}, {time.Second, 200 * mb, 1600 * mb, 200}, {time.Second, 200 * mb, 1600 * mb, 200},
			{time.Second, 400 * mb, 1600 * mb, 100}, {time.Second, 400 * mb, 0, 50},
		}},
	} {
		var p pace
		now := time.Unix(1000, 0)
		for i, s := range c.steps {
			now = now.Add(s.after)
			if got := p.collected(now, s.live, func() uint64 { return s.spare }); got != s.want {
				t.Errorf("%s: step %d: %d %%, want %d %%", c.name, i, got, s.want)
			}
		}
	}
}

// TestCalmed checks that the end of a burst is noticed once where no collection follows.
func TestCalmed(t *testing.T) {
	var p pace
	now, spare := time.Unix(1000, 0), func() uint64 { return 1 << 40 }
	p.collected(now, 1<<30, spare)
	if p.calmed(now.Add(time.Hour)) {
		t.Error("a heap that has had no burst has calmed")
	}
	now = now.Add(time.Hour + time.Second)
	p.collected(now.Add(-time.Second), 1<<30, spare)
	p.collected(now, 1<<30, spare)
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{calm / 2, false}, {calm + 1, true}, {time.Minute, false}} {
		if got := p.calmed(now.Add(c.after)); got != c.want {
			t.Errorf("%v after the last collection of a burst: %v, want %v", c.after, got, c.want)
		}
	}
}

// TestRoom checks what is read of the memory that there is.
func TestRoom(t *testing.T) {
	const meminfo = "MemTotal: 16000000 kB\nMemAvailable:    2000 kB\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  uint64
	}{
		{"nothing is known", nil, 0},
		{"the machine's", map[string]string{"proc/meminfo": meminfo}, 2000 << 10},
		{"version 2, of a group above", map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/memory.current": "5000\n",
			"sys/fs/cgroup/a/memory.max": "100000\n", "sys/fs/cgroup/a/memory.current": "90000\n"}, 10000},
		{"version 1", map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/x\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "100000\n", "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "120000\n"}, 0},
		{"no limit in version 1", map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "3:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "120000\n"}, 2000 << 10},
	} {
		root := t.TempDir()
		for name, text := range c.files {
			file := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := room(root); got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, got, c.want)
		}
	}
}
