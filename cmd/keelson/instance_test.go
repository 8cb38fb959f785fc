package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"keelson.dev/keelson/test/harness"
)

// asInstance, in the environment, has the test's own program claim a data folder, and
// end when it is asked to.
const asInstance = "KEELSON_TEST_INSTANCE"

func TestMain(m *testing.M) {
	which, dir, ok := strings.Cut(os.Getenv(asInstance), " ")
	if !ok {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	i := serverInstance
	if which == agentInstance.name {
		i = agentInstance
	}
	if _, err := i.claim(dir); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	<-ctx.Done()
}

// TestDown ends an agent and a server in the foreground, which share a data folder, and
// finds that it has.
func TestDown(t *testing.T) {
	dir := t.TempDir()
	for _, i := range []instance{agentInstance, serverInstance} {
		p := harness.StartProcess(t, func() *exec.Cmd { return harness.Self(asInstance + "=" + i.name + " " + dir) })
		if pid, err := i.running(dir); err != nil || pid != p.Pid() {
			t.Errorf("%s: process %d, %v; want %d", i.name, pid, err, p.Pid())
		}
		if _, err := i.claim(dir); err == nil || !strings.Contains(err.Error(), "stop it with keelson down") {
			t.Errorf("a second %s: %v", i.name, err)
		}
	}
	if err := down(t.Context(), downFlags{dataDir: dir, grace: -1}); err != nil {
		t.Fatal(err)
	}
	for _, i := range []instance{agentInstance, serverInstance} {
		if pid, err := i.running(dir); err != nil || pid != 0 {
			t.Errorf("%s after down: process %d, %v", i.name, pid, err)
		}
		release, err := i.claim(dir)
		if err != nil {
			t.Errorf("%s after down: %v", i.name, err)
			continue
		}
		release()
	}
}
