package conformance

import (
	"os"
	"testing"

	"k8s.io/kubectl/pkg/cmd"
)

// asKubectl has the test's own program run as kubectl.
const asKubectl = "CONFORMANCE_AS_KUBECTL"

func TestMain(m *testing.M) {
	if os.Getenv(asKubectl) != "" {
		if err := cmd.NewDefaultKubectlCommand().Execute(); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
