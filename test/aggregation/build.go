package aggregation

import (
	"testing"

	"keelson.dev/keelson/test/harness"
)

// The module in which upstream's sample API server is built, and its package.
const module, server = "test/aggregation/sampleapiserver", "k8s.io/sample-apiserver"

// Build returns the path of upstream's sample API server, which it builds unless that
// has been done.
func Build(t testing.TB) string {
	t.Helper()
	return harness.Program(t, module, server)
}

// Program does what Build does, for a TestMain.
func Program() (string, error) { return harness.BuildProgram(module, server) }
