package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/timeline"
)

func traceCommand() *cobra.Command {
	var namespace, output string
	var since time.Duration
	var follow, all bool
	c := &cobra.Command{
		Use:   "trace TYPE/NAME",
		Short: "Show what was done to an object, and because of it, also of one that does not exist any more",
		Long: `trace shows the way of an object as a tree on a time line: each write of it and of what was written because of it, by
whom, and what components did without writing: the scheduler's attempts, the phases on the node, the service rules. Steps
on the critical path of the last thing that was asked for have a star; below, the time that was lost on it is named, and
what the objects that are not ready wait for.`,
		Example: "  keelson trace deploy/web\n  keelson trace -f deploy/web",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("--output %q: there is only json", output)
			}
			cs, _, err := client()
			if err != nil {
				return err
			}
			o, err := findObject(cs, args[0], namespace)
			if err != nil {
				return err
			}
			get := cs.Discovery().RESTClient().Get().AbsPath(trace.Path).
				Param("resource", o.resource().Resource).Param("group", o.resource().Group).Param("namespace", o.namespace).Param("name", o.name)
			var begin time.Time
			if since > 0 {
				begin = time.Now().Add(-since)
			}
			if follow {
				return followTrace(c.Context(), get.Param("watch", "true"), c.OutOrStdout(), begin, output)
			}
			data, err := get.DoRaw(c.Context())
			if err != nil {
				if len(data) > 0 {
					return fmt.Errorf("%s", strings.TrimSpace(string(data)))
				}
				return err
			}
			var way timeline.Timeline
			if err := json.Unmarshal(data, &way); err != nil {
				return err
			}
			way.Steps = slices.DeleteFunc(way.Steps, func(s trace.Step) bool { return s.Time.Before(begin) })
			way.Missing = slices.DeleteFunc(way.Missing, func(g trace.Gap) bool { return g.To.Before(begin) })
			if output == "json" {
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(&way)
			}
			(&timeline.Printer{W: c.OutOrStdout(), All: all, Escape: printers.EscapeTerminal}).Print(&way) // others wrote the messages
			return nil
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the object")
	c.Flags().StringVarP(&output, "output", "o", "", "json prints the steps as they are recorded")
	c.Flags().DurationVar(&since, "since", 0, "show the steps of the last while only, as 10m")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "print each step as it is recorded, until interrupted")
	c.Flags().BoolVar(&all, "all", false, "show all of many objects alike")
	return c
}

// followTrace prints steps as they come.
func followTrace(ctx context.Context, get *rest.Request, w io.Writer, begin time.Time, output string) error {
	stream, err := get.Stream(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	for dec := json.NewDecoder(stream); ; {
		var s trace.Step
		switch err := dec.Decode(&s); {
		case errors.Is(err, io.EOF) || ctx.Err() != nil:
			return nil //nolint:nilerr // the user has ended it
		case err != nil:
			return fmt.Errorf("following the trace: %w", err)
		case s.Time.Before(begin):
		case output == "json":
			if err := json.NewEncoder(w).Encode(&s); err != nil {
				return err
			}
		default:
			fmt.Fprintln(w, printers.EscapeTerminal(timeline.Following(&s)))
		}
	}
}
