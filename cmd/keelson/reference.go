package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keelson.dev/keelson/internal/controllers/manager"
)

// referenceCommand prints docs/flags.md, or docs/controllers.md, which tests
// compare with it.
func referenceCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "reference", Short: "Print the reference of the server's flags", Args: cobra.NoArgs, Hidden: true,
		Run: func(c *cobra.Command, _ []string) { printReference(c.OutOrStdout()) },
	}
	c.AddCommand(&cobra.Command{
		Use: "controllers", Short: "Print the table of controllers", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) { manager.Reference(c.OutOrStdout()) },
	})
	return c
}

func printReference(w io.Writer) {
	fmt.Fprint(w, "# Flags of keelson server and keelson up\n\n"+
		"Every flag of upstream's kube-apiserver v1.37 is here: it works, or Keelson says what to do instead. This page is printed by\n"+
		"`go run ./cmd/keelson reference > docs/flags.md`.\n")
	var single, none []*pflag.Flag
	sets := (&serverFlags{}).sets()
	for _, name := range sets.Order {
		fmt.Fprintf(w, "\n## %s\n\n| flag | default | |\n|------|---------|-|\n", strings.ToUpper(name[:1])+name[1:])
		sets.FlagSets[name].VisitAll(func(fl *pflag.Flag) {
			switch fl.Value.(type) {
			case *fixedFlag:
				single = append(single, fl)
			case *hint:
				none = append(none, fl)
			default:
				fmt.Fprintf(w, "| `--%s` %s | %s | %s |\n", fl.Name, kind(fl), standard(fl), cell(fl.Usage))
			}
		})
	}
	fmt.Fprint(w, "\n## Flags with one answer\n\nThese take only the values that are named; any other is refused with these words before anything starts.\n\n"+
		"| flag | values | |\n|------|--------|-|\n")
	for _, fl := range single {
		t := fl.Value.(*fixedFlag)
		values := "none"
		if len(t.only) > 0 {
			values = "`" + strings.Join(t.only, "`, `") + "`"
		}
		fmt.Fprintf(w, "| `--%s` | %s | %s |\n", fl.Name, values, cell(t.why))
	}
	fmt.Fprint(w, "\n## Flags without effect\n\nThese tune parts that Keelson implements in another way. They are accepted with a warning and have no effect.\n\n| flag | |\n|------|-|\n")
	for _, fl := range none {
		fmt.Fprintf(w, "| `--%s` | %s |\n", fl.Name, cell(fl.Value.(*hint).why))
	}
}

func kind(fl *pflag.Flag) string {
	if fl.Value.Type() == "bool" {
		return ""
	}
	return fl.Value.Type()
}

// standard returns the flag's default, empty if that is to have no value.
func standard(fl *pflag.Flag) string {
	switch fl.DefValue {
	case "", "[]", "0", "0s", "false":
		return ""
	}
	return "`" + strings.Trim(fl.DefValue, "[]") + "`"
}

// cell escapes what ends a cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
