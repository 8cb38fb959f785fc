package aggregation

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Build returns the path of upstream's sample API server, which it builds unless that
// has been done.
func Build(t testing.TB) string {
	t.Helper()
	program, err := Program()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// Program does what Build does, for a TestMain.
func Program() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	// The tests of several packages call it at once: the first one builds.
	lock, err := os.OpenFile(filepath.Join(bin, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	program := filepath.Join(bin, "sample-apiserver")
	build := exec.Command("go", "build", "-o", program, "k8s.io/sample-apiserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // its image has no libraries
	build.Dir = filepath.Join(root, "test", "aggregation", "sampleapiserver")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the sample API server: %w\n%s", err, out)
	}
	return program, nil
}
