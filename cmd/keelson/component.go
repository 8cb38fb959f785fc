package main

import (
	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"

	"keelson.dev/keelson/internal/cluster"
)

// addComponent adds the flags that the components with a process of their own
// share.
func addComponent(sets *cliflag.NamedFlagSets, o *cluster.Component, level *logLevel) {
	o.AddFlags(sets.FlagSet("API client"))
	o.Election.AddFlags(sets.FlagSet("leader election"))
	level.add(sets.FlagSet("logging"))
}

func schedulerCommand() *cobra.Command {
	var o cluster.Component
	var level logLevel
	c := &cobra.Command{
		Use:   "scheduler",
		Short: "Run the scheduler alone, against the API server of any cluster",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := level.set(); err != nil {
				return err
			}
			return cluster.RunScheduler(c.Context(), o)
		},
	}
	var sets cliflag.NamedFlagSets
	addComponent(&sets, &o, &level)
	group(c, sets)
	return c
}

func controllersCommand() *cobra.Command {
	var o cluster.ControllerManager
	var level logLevel
	c := &cobra.Command{
		Use:   "controllers",
		Short: "Run the controllers alone, against the API server of any cluster",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := level.set(); err != nil {
				return err
			}
			return cluster.RunControllers(c.Context(), o)
		},
	}
	var sets cliflag.NamedFlagSets
	o.AddFlags(sets.FlagSet("controllers"))
	addComponent(&sets, &o.Component, &level)
	group(c, sets)
	return c
}
