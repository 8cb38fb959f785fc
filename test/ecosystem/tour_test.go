package ecosystem

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keelson.dev/keelson/test/harness"
)

// tour is the paragraph of the README whose commands TestTour runs.
const tour = "From zero to Black Friday:"

// commands returns the lines of the block after the README's paragraph that begins so.
func commands(t *testing.T, root, paragraph string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "\n"+paragraph)
	if !ok {
		t.Fatalf("the README has no paragraph %q", paragraph)
	}
	_, after, _ = strings.Cut(after, "\n\n")
	for line := range strings.Lines(after) {
		command, ok := strings.CutPrefix(line, "    ")
		if !ok {
			break
		}
		lines = append(lines, strings.TrimSpace(command))
	}
	return lines
}

// TestTour runs the commands of the README's tour from zero to Black Friday, one after
// another, with a home and at an address of its own.
func TestTour(t *testing.T) {
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	home, binary := t.TempDir(), os.Getenv("KEELSON")
	run := func(command string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), "bash", "-c", command)
		c.Dir, c.Env = root, append(os.Environ(), "HOME="+home, "KUBECONFIG="+filepath.Join(home, "kubeconfig"))
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		return string(out)
	}
	t.Cleanup(func() {
		c := exec.Command(binary, "reset", "--data-dir", filepath.Join(home, ".keelson-shop"))
		c.Env = append(os.Environ(), "HOME="+home, "KUBECONFIG="+filepath.Join(home, "kubeconfig"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("reset: %v: %s", err, out)
		}
	})
	says := map[string]string{}
	for i, line := range commands(t, root, tour) {
		command := strings.ReplaceAll(line, "bin/keelson", binary)
		if i == 0 {
			command = strings.Replace(command, " up ", " up --listen "+harness.FreeAddress(t)+" ", 1)
		}
		line, _, _ = strings.Cut(line, "#")
		says[strings.TrimSpace(line)] += run(command)
	}
	nodes := says["bin/keelson kubectl get nodes"]
	if !strings.Contains(nodes, "No resources found") {
		t.Errorf("there are nodes at first: %s", nodes)
	}
	// 250 pods fit on a node.
	if n := strings.Count(nodes, " Ready "); n < 20 || n > 22 {
		t.Errorf("%d nodes for 5,000 pods:\n%s", n, nodes)
	}
	for command, want := range map[string]string{
		"bin/keelson kubectl rollout status deployment shop":                                "successfully rolled out",
		"bin/keelson kubectl get events --field-selector reason=TriggeredScaleUp | head -3": "pod triggered scale-up: [{simulated ",
		"bin/keelson kubectl top nodes":                                                     "MEMORY",
		"bin/keelson kubectl wait --for=delete nodes --all --timeout=5m":                    "condition met",
	} {
		if !strings.Contains(says[command], want) {
			t.Errorf("%s says %q, which lacks %q", command, says[command], want)
		}
	}
}
