package aggregation

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Build builds upstream's sample API server, unless that has been done, and gives
// the program's path.
func Build(t testing.TB) string {
	t.Helper()
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env GOMOD: %v", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	program := filepath.Join(root, "bin", "sample-apiserver")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "k8s.io/sample-apiserver")
	build.Dir = filepath.Join(root, "test", "aggregation", "sampleapiserver")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the sample API server: %v\n%s", err, out)
	}
	return program
}
