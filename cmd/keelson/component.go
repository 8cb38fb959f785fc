package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"

	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/controllers/manager"
	"keelson.dev/keelson/internal/scheduler"
	"keelson.dev/keelson/internal/version"
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
	f := &controllersFlags{}
	c := &cobra.Command{
		Use:   "controllers",
		Short: "Run the controllers alone, against the API server of any cluster",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.version {
				fmt.Println("Kubernetes " + version.Info.GitVersion)
				return nil
			}
			if err := f.level.set(); err != nil {
				return err
			}
			for _, line := range withoutEffect(c.Flags()) {
				fmt.Fprintln(os.Stderr, "keelson: "+line)
			}
			return f.Run(c.Context())
		},
	}
	group(c, f.sets())
	return c
}

// controllersFlags are the flags of keelson controllers.
type controllersFlags struct {
	manager.Options
	level   logLevel
	gates   featureGates
	version bool
}

// sets has the flags by what they are about.
func (f *controllersFlags) sets() (sets cliflag.NamedFlagSets) {
	fs := sets.FlagSet("controllers")
	f.Options.AddFlags(fs)
	fs.Var(&f.gates, "feature-gates", "feature gates, name=bool, comma separated, which are taken at their default only")
	fs.BoolVar(&f.version, "version", false, "print the version and end")
	addFixedFlags(fs, fixedControllerFlags, hintControllerFlags)
	addComponent(&sets, &f.Options.Options, &f.level)
	return sets
}
