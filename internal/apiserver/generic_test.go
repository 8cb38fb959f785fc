package apiserver

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"keelson.dev/keelson/internal/api/catalogue"
)

// ofOne are the files that are about single resources: the table of handlers, and what
// it lists.
var ofOne = []string{"backend.go", "components.go", "eviction.go", "handlers.go", "pods.go", "proxy.go", "reviews.go"}

// allowedTypes are packages of types that a file of generic code may import: the answers
// are of these types, or the file serves that whole API.
var allowedTypes = map[string][]string{
	"discovery.go": {"k8s.io/api/apidiscovery/v2"},
	"fairness.go":  {"k8s.io/api/flowcontrol/v1"},
	"scale.go":     {"k8s.io/api/autoscaling/v1"},
	// Their kinds are in OpenAPI's names of types that several versions share.
	"openapi.go": {"k8s.io/api/admission/v1", "k8s.io/api/admission/v1beta1", "k8s.io/api/imagepolicy/v1alpha1"},
}

// words are the names of resources that mean something else as well.
var words = map[string]string{"discovery.go": "apidiscovery.k8s.io"}

// TestGenericCode checks that generic code knows resources by their rows only: it
// imports no group's types or rows, and names no resource, kind or group.
func TestGenericCode(t *testing.T) {
	names := map[string]bool{}
	for _, r := range catalogue.Builtin() {
		names[r.Resource], names[r.Kind] = true, true
		if strings.Contains(r.Group, ".") {
			names[r.Group] = true
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || slices.Contains(ofOne, file) {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range knowledge(t, file, string(text), names) {
			t.Errorf("%s: %s: put what is particular to a resource into its row (internal/api), or its subresource into handlers.go", file, found)
		}
	}
}

// knowledge reports what a file knows of single resources: imports of their
// types, and their names in strings.
func knowledge(t *testing.T, file, text string, names map[string]bool) (found []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range parsed.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		below, ours := strings.CutPrefix(path, "keelson.dev/keelson/internal/api/")
		switch {
		case slices.Contains(allowedTypes[file], path):
		case strings.HasPrefix(path, "k8s.io/api/"), ours && !slices.Contains([]string{"catalogue", "definitions", "row"}, below):
			found = append(found, "it imports "+path)
		}
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		if s, err := strconv.Unquote(lit.Value); err == nil && names[s] && words[file] != s {
			found = append(found, "it names "+lit.Value)
		}
		return true
	})
	return found
}

func TestKnowledge(t *testing.T) {
	names := map[string]bool{"pods": true, "Pod": true}
	for _, c := range []struct {
		file, text string
		want       int
	}{
		{"a.go", `package a; var x = "pods "`, 0},
		{"a.go", `package a; var x = "pods"; var y = f("Pod")`, 2},
		{"a.go", `package a; import v1 "k8s.io/api/core/v1"; import "keelson.dev/keelson/internal/api/core"`, 2},
		{"scale.go", `package a; import v1 "k8s.io/api/autoscaling/v1"; import "keelson.dev/keelson/internal/api/row"`, 0},
	} {
		if got := knowledge(t, c.file, c.text, names); len(got) != c.want {
			t.Errorf("%s: %q, want %d", c.text, got, c.want)
		}
	}
}
