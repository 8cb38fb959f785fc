// Command generate writes definitions.txt: what upstream's openapi-gen makes of the
// markers (+optional, +listType, +default, +enum) of the built-in types. What the
// types and their fields are for is left out: the types say that themselves.
// It is run by go generate, in the folder above, when the k8s.io modules change.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"

	"keelson.dev/keelson/internal/api/definitions"
)

func main() {
	if err := generate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func generate() error {
	// The generated Go code, of some 50,000 lines, lives only as long as it takes to
	// print what it describes.
	scratch, err := os.MkdirTemp(".", "scratch")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	const module = "k8s.io/kube-openapi"
	release, err := run("go", "list", "-m", "-f", "{{.Version}}", module)
	if err != nil {
		return err
	}
	header := filepath.Join(scratch, "header")
	if err := os.WriteFile(header, nil, 0o666); err != nil {
		return err
	}
	args := []string{
		"run", module + "/cmd/openapi-gen@" + strings.TrimSpace(string(release)),
		"--output-dir", filepath.Join(scratch, "openapi"), "--output-pkg", "scratch/openapi", "--output-file", "openapi.go",
		"--output-model-name-file", "zz_generated.model_name.go", "--go-header-file", header, "--report-filename", os.DevNull,
	}
	for _, p := range packages() {
		args = append(args, "--readonly-pkg", p)
	}
	if _, err := run("go", append(args, packages()...)...); err != nil {
		return err
	}
	here, err := run("go", "list", "./"+scratch+"/openapi")
	if err != nil {
		return err
	}
	printer := filepath.Join(scratch, "print.go")
	if err := os.WriteFile(printer, fmt.Appendf(nil, program, strings.TrimSpace(string(here))), 0o666); err != nil {
		return err
	}
	out, err := run("go", "run", printer)
	if err != nil {
		return err
	}
	return os.WriteFile("definitions.txt", out, 0o666)
}

// packages returns the packages of the types that have definitions.
func packages() []string {
	all := sets.New[string]()
	for _, t := range definitions.Types() {
		all.Insert(t.PkgPath())
	}
	return slices.Sorted(slices.Values(all.UnsortedList()))
}

func run(name string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w", cmd, err)
	}
	return out.Bytes(), nil
}

// program prints a line for each definition: its name, a space, and its schema.
const program = `package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"%s"
)

func main() {
	all := openapi.GetOpenAPIDefinitions(func(name string) spec.Ref { return spec.MustCreateRef("#/definitions/" + name) })
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b, err := json.Marshal(silent(all[name].Schema))
		if err != nil {
			panic(err)
		}
		fmt.Printf("%%s %%s\n", name, b)
	}
}

// silent is s without the words.
func silent(s spec.Schema) spec.Schema {
	s.Description = ""
	if v2, ok := s.Extensions[common.ExtensionV2Schema].(spec.Schema); ok {
		s.Extensions[common.ExtensionV2Schema] = silent(v2)
	}
	for name, p := range s.Properties {
		s.Properties[name] = silent(p)
	}
	return s
}
`
