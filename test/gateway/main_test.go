package gateway

import (
	"os"
	"testing"

	"keelson.dev/keelson/test/harness"
)

func TestMain(m *testing.M) {
	harness.OwnNetwork()
	os.Exit(m.Run())
}
