package csi

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/localdriver"
)

// kindOf is the environment variable with the kind of volumes that the suite
// makes. A process runs one suite only, so that each kind has its own process.
const kindOf = "KEELSON_CSI_SANITY"

// TestSanity runs the sanity suite against the local driver, with folders and
// with devices.
func TestSanity(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts: run it as root (make test does)")
	}
	if kind := os.Getenv(kindOf); kind != "" {
		runSuite(t, kind)
		return
	}
	for _, kind := range []string{"mount", "block"} {
		t.Run(kind, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSanity$")
			cmd.Env = append(os.Environ(), kindOf+"="+kind)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func runSuite(t *testing.T, kind string) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "csi.sock")
	d := &localdriver.Driver{Dir: filepath.Join(dir, "data"), Node: "node", Version: "test", Clock: clock.RealClock{}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx, socket, "") }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(filepath.Join(d.Dir, "volumes")); err != nil || len(left) > 0 {
			t.Errorf("volumes are left: %v (%v)", left, err)
		}
	}()
	config := sanity.NewTestConfig()
	config.Address = "unix://" + socket
	config.TargetPath, config.StagingPath = filepath.Join(dir, "target"), filepath.Join(dir, "staging")
	config.TestVolumeAccessType = kind
	config.TestVolumeSize = 100 << 20
	config.TestVolumeExpandSize = 200 << 20
	sanity.Test(t, config)
}
