package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"

	"keelson.dev/keelson/internal/agent"
)

func agentCommand() *cobra.Command {
	var o agent.ProcessOptions
	var f nodeFlags
	var level logLevel
	var dataDir string
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run this machine's node alone, against the API server of any cluster",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if err := level.set(); err != nil {
				return err
			}
			if dataDir, err = filepath.Abs(dataDir); err != nil {
				return err
			}
			if o.Options, err = f.options(dataDir); err != nil {
				return err
			}
			m, err := f.machine(dataDir)
			if err != nil {
				return err
			}
			if m == nil {
				return errors.New("--no-node leaves nothing to run: leave it out")
			}
			release, err := agentInstance.claim(dataDir)
			if err != nil {
				return err
			}
			defer release()
			begin := time.Now()
			o.Progress = func(step string, took time.Duration) {
				fmt.Printf("%-16s %8s\n", step, took.Round(100*time.Microsecond))
			}
			o.Ready = func() {
				fmt.Printf("ready            %8s  node %s\n", time.Since(begin).Round(100*time.Microsecond), o.NodeName())
			}
			return agent.Run(c.Context(), m, o)
		},
	}
	var sets cliflag.NamedFlagSets
	fs := sets.FlagSet("agent")
	fs.StringVar(&dataDir, "data-dir", defaultDataDir, "folder of the node's state; keelson down --data-dir takes down what the node has on the machine")
	o.AddFlags(fs)
	f.addFlags(&sets)
	level.add(sets.FlagSet("logging"))
	group(c, sets)
	c.AddCommand(agentPrepareCommand())
	return c
}

func agentPrepareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "prepare",
		Short: "Make what agents need in the cluster of the current kubeconfig, as its administrator",
		Long: `Prepare makes the ClusterRole keelson:node-network of the user of the same name, which
may read what the built-in network of nodes is made of, lets nodes act as that user,
and makes the Service kube-system/kube-dns. What is there stays.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			admin, _, err := client()
			if err != nil {
				return err
			}
			return agent.PrepareJoin(c.Context(), admin)
		},
	}
}
