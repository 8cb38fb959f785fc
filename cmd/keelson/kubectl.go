package main

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
)

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
