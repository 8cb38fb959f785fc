package conformance

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"k8s.io/kubectl/pkg/cmd"

	"keelson.dev/keelson/test/aggregation"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/test/harness/realcluster"
)

// asKubectl, in the environment, makes the test's own program run as kubectl.
const asKubectl = "CONFORMANCE_AS_KUBECTL"

func TestMain(m *testing.M) {
	realcluster.Enter()
	if os.Getenv(asKubectl) != "" {
		if err := cmd.NewDefaultKubectlCommand().Execute(); err != nil {
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if *kubeconfig == "" && os.Geteuid() == 0 && !harness.InOwnNetwork() {
		// Modules cannot be downloaded in the test's own network.
		if _, err := aggregation.Program(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		harness.OwnNetwork()
	}
	// Tests wait for the cluster most of the time.
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
