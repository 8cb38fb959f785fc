package conformance

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/rand"
)

// kubectl runs upstream's kubectl, of the library's version, in the test's
// namespace, and returns all that it prints.
func (t *T) kubectl(stdin string, args ...string) (string, error) {
	t.Helper()
	self := got[string](t)(os.Executable())
	cmd := exec.CommandContext(t.Context(), self, append([]string{"--kubeconfig", t.Kubeconfig, "--namespace", t.NS, "--cache-dir", t.TempDir()}, args...)...)
	cmd.Env = append(os.Environ(), asKubectl+"=1")
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// kubectlOK runs kubectl and returns its output. It ends the test if kubectl
// fails.
func (t *T) kubectlOK(args ...string) string {
	t.Helper()
	out, err := t.kubectl("", args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// file writes the object to a file for kubectl -f, and returns its path.
func (t *T) file(u *unstructured.Unstructured) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), rand.String(6)+".json")
	t.must(os.WriteFile(path, got[[]byte](t)(u.MarshalJSON()), 0o600))
	return path
}
