package csi

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keelson.dev/keelson/test/harness"
)

// programs names the environment variable with the folder that holds the sidecars and
// the CRDs of snapshots.
const programs = "KEELSON_CSI_PROGRAMS"

// sidecars are the CSI project's programs, tools of this module.
var sidecars = []string{"csi-provisioner", "csi-attacher", "csi-resizer", "csi-snapshotter", "snapshot-controller"}

// TestMain gets the sidecars before the process is in a network namespace, where no
// module can be downloaded.
func TestMain(m *testing.M) {
	if os.Getenv(programs) != "" {
		harness.OwnNetwork()
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "csi-programs-")
	if err == nil {
		err = collect(dir)
	}
	if err == nil {
		// OwnNetwork replaces the process: another one removes what it has made.
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Env = append(os.Environ(), programs+"="+dir)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		err = cmd.Run()
	}
	os.RemoveAll(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// collect links the sidecars, which go builds and caches, and the CRDs into dir.
func collect(dir string) error {
	for _, s := range sidecars {
		path, err := output("go", "tool", "-n", s)
		if err == nil {
			err = os.Symlink(path, filepath.Join(dir, s))
		}
		if err != nil {
			return fmt.Errorf("building %s: %w", s, err)
		}
	}
	client, err := output("go", "list", "-m", "-f", "{{.Dir}}", "github.com/kubernetes-csi/external-snapshotter/client/v8")
	if err != nil {
		return err
	}
	return os.Symlink(filepath.Join(client, "config", "crd"), filepath.Join(dir, "crd"))
}

func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}
