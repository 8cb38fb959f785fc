package inprocess

import (
	"fmt"
	"strings"

	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"keelson.dev/keelson/internal/version"
)

// component is upstream's component that acts as u, empty if none does. It names
// the manager of the fields that u writes, by which GitOps tools tell them.
func component(u user.Info) string {
	name := u.GetName()
	if ns, _, err := serviceaccount.SplitUsername(name); err == nil && ns == "kube-system" {
		return "kube-controller-manager"
	}
	switch {
	case name == user.KubeControllerManager:
		return "kube-controller-manager"
	case name == user.KubeScheduler:
		return "kube-scheduler"
	case name == user.APIServerUser:
		return "kube-apiserver"
	case name == SimulatedNodes.Name, strings.HasPrefix(name, "system:node:"):
		return "kubelet"
	}
	return ""
}

// UserAgent returns the user agent of clients in this process: as the binaries of
// upstream's components have it, or from their user's name.
func UserAgent(u user.Info) string {
	c := component(u)
	if c == "" {
		return u.GetName()
	}
	commit := "unknown"
	if len(version.Info.GitCommit) > 7 {
		commit = version.Info.GitCommit[:7]
	}
	number, _, _ := strings.Cut(version.Info.GitVersion, "+")
	agent := fmt.Sprintf("%s/%s (%s) kubernetes/%s", c, number, version.Info.Platform, commit)
	if _, _, err := serviceaccount.SplitUsername(u.GetName()); err == nil {
		agent += "/" + u.GetName()
	}
	return agent
}
