package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Program returns the path of the program of a package, which it builds unless that has
// been done. The package is one that the module in a folder of this repository depends on.
func Program(t testing.TB, module, pkg string) string {
	t.Helper()
	program, err := BuildProgram(module, pkg)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// BuildProgram is Program for a TestMain.
func BuildProgram(module, pkg string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	// Several packages' tests want it, at once: the first builds it.
	lock, err := os.OpenFile(filepath.Join(bin, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	program := filepath.Join(bin, filepath.Base(pkg))
	build := exec.Command("go", "build", "-o", program, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // images have no libraries
	build.Dir = filepath.Join(root, module)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s in %s: %w\n%s", pkg, module, err, out)
	}
	return program, nil
}

// Root returns the folder of this repository, which the test runs in or below.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "keelson")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("the test does not run in the repository: no folder above it has cmd/keelson")
		}
	}
}
