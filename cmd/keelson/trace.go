package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/trace"
)

func traceCommand() *cobra.Command {
	var namespace string
	c := &cobra.Command{
		Use:     "trace TYPE/NAME",
		Short:   "Show what was done to an object, and because of it",
		Example: "  keelson trace deploy/web",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			typ, name, err := typeAndName(args[0])
			if err != nil {
				return err
			}
			cs, ns, err := client()
			if err != nil {
				return err
			}
			if namespace != "" {
				ns = namespace
			}
			gvr, err := typeMapper(cs).ResourceFor(schema.ParseGroupResource(typ).WithVersion(""))
			if err != nil {
				return err
			}
			data, err := cs.Discovery().RESTClient().Get().AbsPath("/debug/keelson/trace").
				Param("resource", gvr.Resource).Param("group", gvr.Group).Param("namespace", ns).Param("name", name).DoRaw(c.Context())
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
			trace.Print(os.Stdout, way.UID, way.Steps)
			return nil
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the object")
	return c
}
