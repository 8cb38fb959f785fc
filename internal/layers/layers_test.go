package layers

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "keelson.dev/keelson"

// section is the heading of docs/architecture.md under which the layers are
// listed, one indented line each, the path first, from the top down.
const section = "## Layers"

// sideBySide are the layers whose packages do not import one another: each of
// their folders is one controller, one component.
var sideBySide = []string{"internal/controllers", "internal/network"}

// shared are the packages of these layers that the others may import.
var shared = map[string]bool{
	"internal/controllers":                     true,
	"internal/controllers/controllertest":      true,
	"internal/network/index":                   true,
	"internal/network/nft":                     true,
	"internal/network/reserved":                true,
	"internal/network/upkeep":                  true,
	"internal/controllers/history":             true,
	"internal/controllers/daemonset/placement": true,
}

// table is the package that lists all controllers and so imports each.
const table = "internal/controllers/manager"

// childless are the layers in which a package does not import one whose folder
// it is in: the parent puts the children together.
var childless = []string{"internal/agent", "internal/scheduler", "internal/network", "internal/node"}

// contracts are the packages of these layers that say what their children do: a
// plug-in imports its interface, a fake what it stands for.
var contracts = map[string]bool{
	"internal/node/volume": true,
	"internal/node/cri":    true,
}

func TestLayers(t *testing.T) {
	root := filepath.Join("..", "..")
	layers := documented(t, filepath.Join(root, "docs", "architecture.md"))
	imports := importsOf(t, root)
	for pkg, all := range imports {
		from := layerOf(layers, pkg)
		if from < 0 {
			if pkg != "internal/layers" && !strings.HasPrefix(pkg, "test/") && !strings.HasPrefix(pkg, "bench") {
				t.Errorf("%s is in no layer of docs/architecture.md: add it, or the layer that it belongs to", pkg)
			}
			continue
		}
		for _, imported := range all {
			if msg := forbidden(layers, from, pkg, imported); msg != "" {
				t.Error(msg)
			}
		}
	}
}

// forbidden returns what is wrong with pkg, of the layer from, importing
// imported, and "" where nothing is.
func forbidden(layers []string, from int, pkg, imported string) string {
	if strings.HasPrefix(imported, "test/") {
		return fmt.Sprintf("%s imports %s: code that is not a test's may not", pkg, imported)
	}
	to := layerOf(layers, imported)
	if to < from {
		return fmt.Sprintf("%s (layer %s) imports %s (layer %s), which is above it", pkg, layers[from], imported, name(layers, to))
	}
	if to != from {
		return ""
	}
	layer := layers[from]
	if slices.Contains(childless, layer) && strings.HasPrefix(pkg, imported+"/") && !contracts[imported] {
		return fmt.Sprintf("%s imports its parent %s: let the parent give it what it needs", pkg, imported)
	}
	if slices.Contains(sideBySide, layer) && pkg != table && folder(layer, pkg) != folder(layer, imported) && !shared[imported] {
		return fmt.Sprintf("%s imports %s: those of %s do not import one another", pkg, imported, layer)
	}
	return ""
}

// folder returns the first folder of pkg below layer.
func folder(layer, pkg string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(pkg, layer), "/"), "/")
	return first
}

func name(layers []string, i int) string {
	if i < 0 {
		return "none"
	}
	return layers[i]
}

// documented returns the layers that the document lists, from the top down.
func documented(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(data), "\n"+section)
	if !ok {
		t.Fatalf("%s has no heading %q", file, section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var layers []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "    "); ok && rest[0] != ' ' {
			layers = append(layers, strings.Fields(rest)[0])
		}
	}
	if len(layers) < 8 {
		t.Fatalf("%s lists only these layers: %v", file, layers)
	}
	return layers
}

// layerOf returns the index of the layer that pkg is in, -1 if in none.
func layerOf(layers []string, pkg string) int {
	return slices.IndexFunc(layers, func(l string) bool { return pkg == l || strings.HasPrefix(pkg, l+"/") })
}

// importsOf gives, for each package of this module below root, the packages of
// it that its files other than tests import.
func importsOf(t *testing.T, root string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch base := d.Name(); {
			case file == root:
			case base == "testdata", base == "node_modules", strings.HasPrefix(base, "."), strings.HasPrefix(base, "_"):
				return fs.SkipDir
			default:
				if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil {
					return fs.SkipDir
				}
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(dir)
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		out[pkg] = append(out[pkg], nil...)
		for _, i := range parsed.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if in, ok := strings.CutPrefix(p, module+"/"); ok && !slices.Contains(out[pkg], in) {
				out[pkg] = append(out[pkg], in)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d packages found below %s", len(out), root)
	}
	return out
}

// TestForbidden checks that the rules refuse the imports that they forbid.
func TestForbidden(t *testing.T) {
	layers := []string{"internal/cluster", "internal/controllers", "internal/node", "internal/network", "internal/store"}
	for _, c := range []struct {
		pkg, imported string
		want          string
	}{
		{"internal/cluster", "internal/store", ""},
		{"internal/store/etcd", "internal/cluster/sim", "above"},
		{"internal/store", "internal/unlisted", "above"},
		{"internal/store", "test/harness", "not a test's"},
		{"internal/controllers/job", "internal/controllers", ""},
		{"internal/controllers/job", "internal/controllers/cronjob", "one another"},
		{"internal/controllers/manager", "internal/controllers/job", ""},
		{"internal/node", "internal/node/cri", ""},
		{"internal/node/pod", "internal/node", "parent"},
		{"internal/node/volume/hostpath", "internal/node/volume", ""},
		{"internal/network/dns/zone", "internal/network/dns", "parent"},
		{"internal/network/dns", "internal/network/proxy", "one another"},
		{"internal/network/proxy/nft", "internal/network/proxy/rules", ""},
	} {
		got := forbidden(layers, layerOf(layers, c.pkg), c.pkg, c.imported)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s imports %s: %q, want %q in it", c.pkg, c.imported, got, c.want)
		}
	}
}
