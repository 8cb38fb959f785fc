package main

import (
	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/term"
)

// general is the set of the flags that are of no component.
const general = "general"

// group adds the flags of all sets to c, whose --help prints them set by set.
func group(c *cobra.Command, sets cliflag.NamedFlagSets) {
	c.Long = c.Short
	sets.FlagSet(general).BoolP("help", "h", false, "help for "+c.Name())
	for _, name := range sets.Order {
		c.Flags().AddFlagSet(sets.FlagSets[name])
	}
	width, _, err := term.TerminalSize(c.OutOrStdout())
	if err != nil {
		width = 0 // no terminal: lines are not wrapped
	}
	cliflag.SetUsageAndHelpFunc(c, sets, width)
}
