package main

import (
	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"

	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/controllers/manager"
	"keelson.dev/keelson/internal/scheduler"
)

// addComponent adds the flags that the components with a process of their own
// share.
func addComponent(sets *cliflag.NamedFlagSets, o *component.Options, level *logLevel) {
	o.AddFlags(sets.FlagSet("API client"))
	o.Election.AddFlags(sets.FlagSet("leader election"))
	level.add(sets.FlagSet("logging"))
}

func schedulerCommand() *cobra.Command {
	var o component.Options
	var level logLevel
	c := &cobra.Command{
		Use:   "scheduler",
		Short: "Run the scheduler alone, against the API server of any cluster",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := level.set(); err != nil {
				return err
			}
			return scheduler.RunProcess(c.Context(), o)
		},
	}
	var sets cliflag.NamedFlagSets
	addComponent(&sets, &o, &level)
	group(c, sets)
	return c
}

func controllersCommand() *cobra.Command {
	var o manager.Options
	var level logLevel
	c := &cobra.Command{
		Use:   "controllers",
		Short: "Run the controllers alone, against the API server of any cluster",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := level.set(); err != nil {
				return err
			}
			return o.Run(c.Context())
		},
	}
	var sets cliflag.NamedFlagSets
	o.AddFlags(sets.FlagSet("controllers"))
	addComponent(&sets, &o.Options, &level)
	group(c, sets)
	return c
}
