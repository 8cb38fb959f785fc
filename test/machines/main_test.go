package machines_test

import (
	"os"
	"testing"

	"k8s.io/kubectl/pkg/cmd"

	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realcluster"
)

// asKubectl has the test's own program run as kubectl.
const asKubectl = "MACHINES_AS_KUBECTL"

func TestMain(m *testing.M) {
	realcluster.Enter()
	if os.Getenv(asKubectl) != "" {
		if err := cmd.NewDefaultKubectlCommand().Execute(); err != nil {
			os.Exit(1)
		}
		return
	}
	harness.OwnNetwork()
	os.Exit(m.Run())
}
