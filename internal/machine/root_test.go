package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestChooseRoot checks that a node has a kubelet's folder where there is no kubelet, and
// keeps what it has.
func TestChooseRoot(t *testing.T) {
	for name, c := range map[string]struct {
		in, kubelet []string // folders that there are
		record      string
		torn        string // the content of the record, if set
		asked       string
		want        string
	}{
		"new":                                 {want: "kubelet"},
		"profiles of pods":                    {kubelet: []string{"seccomp/a"}, want: "kubelet"},
		"a kubelet":                           {kubelet: []string{"pods"}, want: "node"},
		"an older node, in use":               {in: []string{"pods/u"}, want: "node"},
		"an older node, not in use":           {in: []string{"pods"}, want: "kubelet"},
		"as before":                           {kubelet: []string{"pods"}, record: "kubelet", want: "kubelet"},
		"as before, of a record that is lost": {kubelet: []string{"pods"}, record: "kubelet", torn: "\x00\x00\x00\x00", want: "kubelet"},
		"as before, of half a record":         {kubelet: []string{"pods"}, record: "kubelet", torn: "/var", want: "kubelet"},
		"as before, of the lost record of an older node": {in: []string{"pods/u"}, kubelet: []string{"pods"}, record: "node", torn: "\n", want: "node"},
		"asked for": {kubelet: []string{"pods"}, record: "kubelet", asked: "asked", want: "asked"},
	} {
		base := t.TempDir()
		path := func(name string) string { return filepath.Join(base, name) }
		if err := os.Mkdir(path("node"), 0o755); err != nil {
			t.Fatal(err)
		}
		for folder, subs := range map[string][]string{"node": c.in, "kubelet": c.kubelet} {
			for _, s := range subs {
				if err := os.MkdirAll(filepath.Join(path(folder), s), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		if c.record != "" {
			if err := (&Machine{dir: path("node"), root: path(c.record)}).claimRoot(); err != nil {
				t.Fatal(err)
			}
		}
		if c.torn != "" {
			if err := os.WriteFile(filepath.Join(path("node"), rootFile), []byte(c.torn), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		asked := ""
		if c.asked != "" {
			asked = path(c.asked)
		}
		if got := chooseRoot(path("node"), asked, path("kubelet")); got != path(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestErase checks that what is the node's is erased, and nothing else.
func TestErase(t *testing.T) {
	base := t.TempDir()
	m := &Machine{dir: filepath.Join(base, "node"), root: filepath.Join(base, "kubelet")}
	make := func(names ...string) {
		t.Helper()
		for _, n := range names {
			if err := os.MkdirAll(filepath.Join(m.root, n), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	make("pods/u", "seccomp")
	there := func(want bool, name string) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(m.root, name)); errors.Is(err, fs.ErrNotExist) == want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.Erase(); err != nil { // it is not the node's
		t.Fatal(err)
	}
	there(true, "pods/u")
	if err := errors.Join(m.claimRoot(), m.Erase()); err != nil {
		t.Fatal(err)
	}
	there(false, "pods")
	there(true, "seccomp")
}
