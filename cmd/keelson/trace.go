package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/trace"
)

func traceCommand() *cobra.Command {
	var namespace, output string
	var since time.Duration
	c := &cobra.Command{
		Use:     "trace TYPE/NAME",
		Short:   "Show what was done to an object, and because of it, also of one that does not exist any more",
		Example: "  keelson trace deploy/web",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cs, _, err := client()
			if err != nil {
				return err
			}
			o, err := findObject(cs, args[0], namespace)
			if err != nil {
				return err
			}
			data, err := cs.Discovery().RESTClient().Get().AbsPath("/debug/keelson/trace").
				Param("resource", o.resource().Resource).Param("group", o.resource().Group).Param("namespace", o.namespace).Param("name", o.name).DoRaw(c.Context())
			if err != nil {
				if len(data) > 0 {
					return fmt.Errorf("%s", strings.TrimSpace(string(data)))
				}
				return err
			}
			var way struct {
				UID   types.UID    `json:"uid"`
				Steps []trace.Step `json:"steps"`
			}
			if err := json.Unmarshal(data, &way); err != nil {
				return err
			}
			if since > 0 {
				begin := time.Now().Add(-since)
				way.Steps = slices.DeleteFunc(way.Steps, func(s trace.Step) bool { return s.Time.Before(begin) })
			}
			switch output {
			case "":
				trace.Print(c.OutOrStdout(), way.UID, way.Steps)
				return nil
			case "json":
				enc := json.NewEncoder(c.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(way)
			}
			return fmt.Errorf("--output %q: there is only json", output)
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the object")
	c.Flags().StringVarP(&output, "output", "o", "", "json prints the steps as they are recorded")
	c.Flags().DurationVar(&since, "since", 0, "show the steps of the last while only, as 10m")
	return c
}
