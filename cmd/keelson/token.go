package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/rest"
	"k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/agent/join"
)

func tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Let other machines join the cluster: bootstrap tokens",
		Long: `Token makes, lists and deletes the bootstrap tokens by which machines join the
cluster of the current kubeconfig. keelson token create --print-join-command prints
the command that joins a machine.`,
		Args: cobra.NoArgs,
	}
	c.AddCommand(tokenCreateCommand(), tokenListCommand(), tokenDeleteCommand(), tokenGenerateCommand())
	return c
}

func tokenCreateCommand() *cobra.Command {
	t := join.Token{}
	var ttl time.Duration
	var printJoin bool
	var server string
	c := &cobra.Command{
		Use:   "create [token]",
		Short: "Make a bootstrap token",
		Long: `Create makes a bootstrap token, the one that is given or a random one, and what
machines need in the cluster to join by it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				given, err := join.Parse(args[0])
				if err != nil {
					return err
				}
				t.ID, t.Secret = given.ID, given.Secret
			}
			if ttl < 0 {
				return fmt.Errorf("--ttl %s: give 0 for a token that never expires", ttl)
			}
			if ttl > 0 {
				t.Expires = time.Now().Add(ttl)
			}
			admin, config, err := adminClient()
			if err != nil {
				return err
			}
			ctx := c.Context()
			if err := rest.LoadTLSFiles(config); err != nil {
				return err
			}
			if server == "" {
				if server, err = join.Server(ctx, admin); err != nil {
					return err
				}
			}
			hashes, err := join.Hashes(config.CAData)
			if err != nil {
				return err
			}
			if err := join.Prepare(ctx, admin, server, config.CAData); err != nil {
				return err
			}
			if err := agent.PrepareJoin(ctx, admin); err != nil {
				return err
			}
			made, err := join.Create(ctx, admin, t)
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			if !printJoin {
				_, err = fmt.Fprintln(out, made.String())
				return err
			}
			_, err = fmt.Fprintf(out, "keelson agent --server %s --token %s --ca-hash %s\n", server, made.String(), strings.Join(hashes, ","))
			return err
		},
	}
	fs := c.Flags()
	fs.StringVar(&t.Description, "description", "", "what the token is for")
	fs.StringSliceVar(&t.Groups, "groups", []string{join.DefaultGroup}, "groups that machines are in which show the token")
	fs.StringSliceVar(&t.Usages, "usages", slices.Clone(api.KnownTokenUsages), "what the token is for: signing (the authority's discovery), authentication (requests)")
	fs.DurationVar(&ttl, "ttl", 24*time.Hour, "when the token ends; 0 is never")
	fs.BoolVar(&printJoin, "print-join-command", false, "print the whole command by which a machine joins, in place of the token")
	fs.StringVar(&server, "server", "", "URL by which machines reach the API server (default: that of the Service kubernetes' endpoints)")
	return c
}

func tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the bootstrap tokens", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			admin, _, err := adminClient()
			if err != nil {
				return err
			}
			all, err := join.List(c.Context(), admin)
			if err != nil {
				return err
			}
			return printTokens(c.OutOrStdout(), all, time.Now())
		},
	}
}

// printTokens prints tokens as kubeadm does.
func printTokens(w io.Writer, all []join.Token, now time.Time) error {
	t := tabwriter.NewWriter(w, 10, 4, 3, ' ', 0)
	fmt.Fprintln(t, "TOKEN\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION\tEXTRA GROUPS")
	or := func(s, empty string) string {
		if s == "" {
			return empty
		}
		return s
	}
	for i := range all {
		x := &all[i]
		ttl, expires := "<forever>", "<never>"
		if !x.Expires.IsZero() {
			expires, ttl = x.Expires.Format(time.RFC3339), "<invalid>"
			if left := x.Expires.Sub(now); left > 0 {
				ttl = duration.ShortHumanDuration(left)
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", x.String(), ttl, expires, or(strings.Join(x.Usages, ","), "<none>"), or(x.Description, "<none>"), or(strings.Join(x.Groups, ","), "<none>"))
	}
	return t.Flush()
}

func tokenDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete token...", Short: "Delete bootstrap tokens, given whole or by their IDs", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			admin, _, err := adminClient()
			if err != nil {
				return err
			}
			for _, a := range args {
				id, err := join.Delete(c.Context(), admin, a)
				if err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "bootstrap token %q deleted\n", id)
			}
			return nil
		},
	}
}

func tokenGenerateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "generate", Short: "Print a random token, without making it in the cluster", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := bootstraputil.GenerateBootstrapToken()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), t)
			return err
		},
	}
}
