package controlplane

import (
	"encoding/json"
	"runtime"
	"testing"

	"k8s.io/apimachinery/pkg/version"
)

// TestVersion checks that the running server reports the version of its build.
func TestVersion(t *testing.T) {
	c := boot(t, Options{NoDrain: true})
	var got version.Info
	if err := json.Unmarshal(ask(c, "GET", "/version", "").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := version.Info{Major: "1", Minor: "37", EmulationMajor: "1", EmulationMinor: "37", MinCompatibilityMajor: "1", MinCompatibilityMinor: "36",
		GitVersion: "v1.37.2+keelson", GitCommit: got.GitCommit, GitTreeState: got.GitTreeState, BuildDate: got.BuildDate,
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if got != want {
		t.Errorf("the version is\n%+v, want\n%+v", got, want)
	}
}
