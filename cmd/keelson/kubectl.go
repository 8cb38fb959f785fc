package main

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"keelson.dev/keelson/internal/apiserver"
)

// runKubectl is upstream's kubectl, with the flag --at.
func runKubectl(args []string) {
	args, moment, err := cutMoment(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error: "+err.Error())
		os.Exit(1)
	}
	os.Args = args // it and its plugins read them there
	command := kubectl.NewDefaultKubectlCommand()
	if moment != "" {
		command = kubectlAt(moment, args)
	}
	if err := cli.RunNoErrOutput(command); err != nil {
		kubectlutil.CheckErr(err)
	}
}

// kubectlAt returns a kubectl that reads the API as it was at a moment.
func kubectlAt(moment string, args []string) *cobra.Command {
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50).WithWarningPrinter(streams).
		WithWrapConfigFn(func(c *rest.Config) *rest.Config { return atMoment(c, moment) })
	return kubectl.NewDefaultKubectlCommandWithArgs(kubectl.KubectlOptions{
		PluginHandler: kubectl.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     args,
		ConfigFlags:   flags,
		IOStreams:     streams,
	})
}

// atMoment returns a configuration whose requests read the API as it was at a moment.
func atMoment(c *rest.Config, moment string) *rest.Config {
	c = rest.CopyConfig(c)
	c.Host = strings.TrimSuffix(c.Host, "/") + apiserver.PastPrefix + url.PathEscape(moment)
	return c
}

// cutMoment takes --at out of kubectl's arguments.
func cutMoment(args []string) (rest []string, moment string, err error) {
	for i := 1; i < len(args); i++ {
		switch value, ok := strings.CutPrefix(args[i], "--at="); {
		case args[i] == "--":
			return args, "", nil
		case ok:
			return slices.Delete(slices.Clone(args), i, i+1), value, nil
		case args[i] == "--at" && i+1 < len(args):
			return slices.Delete(slices.Clone(args), i, i+2), args[i+1], nil
		case args[i] == "--at":
			return nil, "", fmt.Errorf("flag needs an argument: --at: how long ago (10m), a time (2006-01-02T15:04:05Z) or a resourceVersion")
		}
	}
	return args, "", nil
}

// kubectlCommand is there for the help: main has taken the call before.
func kubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl",
		Short: "Run the built-in kubectl",
		Long: "Run the built-in kubectl, which is upstream's with one flag more: --at MOMENT has it read the cluster as it was\n" +
			"at a moment, which is how long ago that was (10m), a time (2006-01-02T15:04:05Z) or a resourceVersion.",
		Example:            "  keelson kubectl get pods -A\n  keelson kubectl --at 10m get pods\n  ln -s keelson kubectl && ./kubectl get pods -A",
		DisableFlagParsing: true,
		Run:                func(*cobra.Command, []string) {},
	}
}
