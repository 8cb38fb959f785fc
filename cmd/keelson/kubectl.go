package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
)

// asKubectl gives kubectl's arguments if the program is to be kubectl: as
// "keelson kubectl …", to complete such a line, or called by that name through
// a link.
func asKubectl(args []string) ([]string, bool) {
	switch {
	case filepath.Base(args[0]) == "kubectl":
		return args, true
	case len(args) > 1 && args[1] == "kubectl":
		return args[1:], true
	case len(args) > 2 && strings.HasPrefix(args[1], cobra.ShellCompRequestCmd) && args[2] == "kubectl":
		return append([]string{"kubectl", args[1]}, args[3:]...), true
	}
	return nil, false
}

// runKubectl is upstream's kubectl.
func runKubectl(args []string) {
	os.Args = args // it and its plugins read them there
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

// kubectlCommand is there for the help: main has taken the call before.
func kubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl",
		Short:              "Run the built-in kubectl",
		Example:            "  keelson kubectl get pods -A\n  ln -s keelson kubectl && ./kubectl get pods -A",
		DisableFlagParsing: true,
		Run:                func(*cobra.Command, []string) {},
	}
}
