package node_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"keelson.dev/keelson/test/harness"
)

// TestRuntimeKilled checks that a containerd that is killed is started again,
// that its containers keep running, and that new ones can be started.
func TestRuntimeKilled(t *testing.T) {
	e := start(t)
	e.create(sleepingPod("before"))
	before := e.pod("before", ready)
	pidFile := filepath.Join(filepath.Dir(strings.TrimPrefix(e.runtime, "unix://")), "containerd.pid")
	pid := func() int {
		b, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 2 {
		old := pid()
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, "another containerd", func() bool { return pid() != old })
	}
	e.create(sleepingPod("after"))
	e.pod("after", ready)
	p := e.pod("before", ready)
	if a, b := before.Status.ContainerStatuses[0], p.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		t.Errorf("the container was replaced: %s, then %s with %d restarts", a.ContainerID, b.ContainerID, b.RestartCount)
	}
}
