package cluster

import (
	"runtime/debug"
	"strings"

	"k8s.io/component-base/version"

	"keelson.dev/keelson/internal/apiserver"
)

// Version is the version that the API server reports.
var Version = buildVersion()

// buildVersion takes what the linker was told of the build (the Makefile's
// LDFLAGS) and, where it was told nothing, what the go command left in the binary.
func buildVersion() apiserver.VersionInfo {
	v := version.Get() // the Go version, compiler and platform are this process's
	v.Major, v.Minor, v.GitVersion = "1", "37", "v1.37.2+keelson"
	v.EmulationMajor, v.EmulationMinor = v.Major, v.Minor
	v.MinCompatibilityMajor, v.MinCompatibilityMinor = "1", "36"
	if v.GitCommit != "" && !strings.HasPrefix(v.GitCommit, "$Format") {
		return v
	}
	v.GitCommit, v.GitTreeState, v.BuildDate = "", "", ""
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.GitCommit = s.Value
		case "vcs.time":
			v.BuildDate = s.Value
		case "vcs.modified":
			v.GitTreeState = map[string]string{"true": "dirty", "false": "clean"}[s.Value]
		}
	}
	return v
}
