// Command keelson is Kubernetes in one binary.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"keelson.dev/keelson/cmd/keelson/askubectl"
)

func main() {
	if args, ok := askubectl.Args(os.Args); ok {
		runKubectl(args)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := command(os.Args[0]).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "keelson: "+err.Error())
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "keelson",
		Short:         "Kubernetes in one binary",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(serverCommand(), schedulerCommand(), controllersCommand(), agentCommand(), tokenCommand(), upCommand(), downCommand(), resetCommand(), imageCommand(), traceCommand(), diffCommand(), restoreCommand(), snapshotCommand(), whatifCommand(), whyCommand(), dashCommand(), kubectlCommand(), envtestCommand(), versionCommand(), referenceCommand())
	return c
}
