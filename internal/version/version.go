// Package version has the version of this build. It may import nothing of this
// module.
package version

import (
	"runtime/debug"
	"strings"

	"k8s.io/apimachinery/pkg/version"
	base "k8s.io/component-base/version"
)

// Build ends the version that the node agents of Keelson report.
const Build = "+keelson"

// Info is the version that the API server reports.
var Info = read()

// read returns the build from the linker's flags (the Makefile's LDFLAGS), else
// from the build information of the go command.
func read() version.Info {
	v := base.Get() // the Go version, compiler and platform are this process's
	v.Major, v.Minor, v.GitVersion = "1", "37", "v1.37.2"+Build
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
