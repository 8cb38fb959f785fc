package containerd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestGrace(t *testing.T) {
	for _, c := range []struct {
		annotation string
		most, want time.Duration
	}{
		{"5", -1, 5 * time.Second},
		{"5", 2 * time.Second, 2 * time.Second},
		{"1", 2 * time.Second, time.Second},
		{"0", -1, 0},
		{"", -1, defaultGrace},
		{"-3", -1, defaultGrace},
		{"soon", 10 * time.Second, 10 * time.Second},
	} {
		k := &runtimeapi.Container{Annotations: map[string]string{"io.kubernetes.pod.terminationGracePeriod": c.annotation}}
		if got := grace(k, c.most); got != c.want {
			t.Errorf("%q, at most %s: %s, want %s", c.annotation, c.most, got, c.want)
		}
	}
}

func TestWaiting(t *testing.T) {
	begun := time.Unix(0, 0)
	w := waiting{begun: begun, left: map[string]time.Duration{"a/1": time.Second, "a/2": time.Second, "b/1": 30 * time.Second, "b/2": time.Second}}
	for _, c := range []struct {
		done, want string
		after      time.Duration
	}{
		{"", "waiting for 4 pods: b/1, a/1, a/2, … (grace period ends in 28s)", 2 * time.Second},
		{"a/1", "waiting for 3 pods: b/1, a/2, b/2", 31 * time.Second},
		{"b/1", "waiting for 2 pods: a/2, b/2", 31 * time.Second},
		{"a/2", "waiting for 1 pod: b/2 (grace period ends in 1s)", 0},
		{"b/2", "", 0},
	} {
		w.done(c.done)
		if got := w.String(begun.Add(c.after)); got != c.want {
			t.Errorf("without %s: %q, want %q", c.done, got, c.want)
		}
	}
}

func TestIsShim(t *testing.T) {
	const socket = "/run/keelson-default/containerd.sock"
	for _, c := range []struct {
		cmdline []string
		want    bool
	}{
		{[]string{"/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "x", "-address", socket}, true},
		{[]string{"/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "x", "-address", "/run/containerd/containerd.sock"}, false},
		{[]string{"/usr/bin/containerd-shim-runc-v2", "-address"}, false},
		{[]string{"grep", "-address", socket}, false},
		{nil, false},
	} {
		if got := isShim(c.cmdline, socket); got != c.want {
			t.Errorf("%q: %t", c.cmdline, got)
		}
	}
}

// TestProcess checks the wait for processes that end, that ignore SIGTERM and
// are killed, and for one that does not end in time.
func TestProcess(t *testing.T) {
	start := func(script string) *process {
		t.Helper()
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p, err := open(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			p.Close()
		})
		return p
	}
	ctx := t.Context()
	if err := start("exit 3").wait(ctx); err != nil {
		t.Errorf("one that ends: %v", err)
	}
	if err := start("exec sleep 1000").terminate(ctx, time.Minute); err != nil {
		t.Errorf("one that is asked to end: %v", err)
	}
	if err := start("trap '' TERM; while :; do sleep 1000; done").terminate(ctx, time.Millisecond); err != nil {
		t.Errorf("one that does not want to end: %v", err)
	}
	late := errors.New("late")
	short, cancel := context.WithTimeoutCause(ctx, time.Millisecond, late)
	defer cancel()
	if err := start("exec sleep 1000").wait(short); !errors.Is(err, late) {
		t.Errorf("one that goes on: %v", err)
	}
	if _, err := open(1 << 22); err == nil {
		t.Error("a process that cannot be was opened")
	}
}

// TestSweep checks that what a containerd has left half removed is removed, unless it may
// be mounted.
func TestSweep(t *testing.T) {
	r := &Runtime{Options{State: t.TempDir()}}
	dir := filepath.Join(r.o.State, "state", "io.containerd.runtime.v2.task", "k8s.io")
	for _, d := range []string{".removed/work", ".mounted/rootfs", "running/rootfs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.sweep()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || entries[0].Name() != ".mounted" || entries[1].Name() != "running" {
		t.Errorf("left: %v (%v)", entries, err)
	}
}
