package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver/history"
	"keelson.dev/keelson/internal/heap"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/whatif"
)

// change is what a what-if does to the fork.
type change struct {
	files, drain, scale []string
	at, namespace       string
	asJSON              bool
}

func whatifCommand() *cobra.Command {
	var ch change
	c := &cobra.Command{
		Use:   "whatif [flags] [-- KUBECTL ARGUMENTS]",
		Short: "Show what a change would do to the cluster, without touching it",
		Long: "Show what a change would do to the cluster, without touching it. All objects are copied into a control plane in the\n" +
			"memory of this process, with simulated nodes of the same shape; the change is made there, with all controllers and\n" +
			"admission, and time runs ahead until nothing moves. Webhooks and aggregated servers are not asked; images are\n" +
			"always there, and containers become Ready.",
		Example: "  keelson whatif -f change.yaml\n  keelson whatif --drain node-1\n  keelson whatif --scale deploy/web=50\n  keelson whatif --at 10m -- delete namespace shop",
		RunE: func(c *cobra.Command, args []string) error {
			if len(ch.files)+len(ch.drain)+len(ch.scale)+len(args) == 0 {
				return errors.New("give the change: -f FILE, --drain NODE, --scale TYPE/NAME=N, or what kubectl should do after --")
			}
			return ch.run(c.Context(), c.OutOrStdout(), args)
		},
	}
	fs := c.Flags()
	fs.StringSliceVarP(&ch.files, "filename", "f", nil, "files with objects to apply")
	fs.StringSliceVar(&ch.drain, "drain", nil, "nodes to drain")
	fs.StringSliceVar(&ch.scale, "scale", nil, "TYPE/NAME=N, to scale")
	fs.StringVar(&ch.at, "at", "", "start from the cluster as it was: how long ago (10m), a time (2006-01-02T15:04:05Z) or a resourceVersion")
	fs.StringVarP(&ch.namespace, "namespace", "n", "", "namespace of the objects")
	fs.BoolVar(&ch.asJSON, "json", false, "print JSON")
	return c
}

// run makes the change and prints what it does.
func (ch *change) run(ctx context.Context, out io.Writer, args []string) error {
	content, err := ch.content(ctx)
	if err != nil {
		return err
	}
	heap.Pace()
	klog.SetOutput(io.Discard) // a fork's components find much of the world missing
	klog.LogToStderr(false)
	began := time.Now()
	f, err := whatif.New(ctx, content)
	if err != nil {
		return err
	}
	defer f.Stop() //nolint:errcheck // nothing of it is kept
	stay, err := ch.make(ctx, f, args)
	if err != nil {
		return err
	}
	took, err := f.Settle(ctx, time.Minute)
	if err != nil {
		return err
	}
	r, err := f.Report(ctx, took)
	if err != nil {
		return err
	}
	if ch.asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			*whatif.Report
			Stay map[string]string `json:"stay,omitempty"`
		}{r, stay})
	}
	printReport(out, r, stay)
	fmt.Fprintf(out, "\n%d objects, computed in %s; nothing of the cluster was touched\n", len(content.Entries), time.Since(began).Round(10*time.Millisecond))
	return nil
}

// content gets all objects of the cluster.
func (ch *change) content(ctx context.Context) (*embedded.Content, error) {
	cs, _, err := client()
	if err != nil {
		return nil, err
	}
	r := cs.Discovery().RESTClient().Get().AbsPath(history.SnapshotPath).Param("form", "plain")
	if ch.at != "" {
		r = r.Param("at", ch.at)
	}
	stream, err := r.Stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("copying the cluster's objects: %w", err)
	}
	defer stream.Close()
	c, _, err := embedded.ReadContent(stream, store.NewCodec(catalogue.Scheme))
	return c, err
}

// make makes the change in a fork. It returns the pods that a drain leaves.
func (ch *change) make(ctx context.Context, f *whatif.Fork, args []string) (map[string]string, error) {
	var commands [][]string
	for _, file := range ch.files {
		commands = append(commands, []string{"apply", "-f", file})
	}
	for _, s := range ch.scale {
		object, n, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("--scale %q: give a type, a name and a number, as in deploy/web=50", s)
		}
		commands = append(commands, []string{"scale", object, "--replicas=" + n})
	}
	if len(args) > 0 {
		commands = append(commands, args)
	}
	for _, c := range commands {
		if ch.namespace != "" {
			c = append([]string{"--namespace=" + ch.namespace}, c...)
		}
		if err := kubectlOn(f.Config, c); err != nil {
			return nil, err
		}
	}
	stay := map[string]string{}
	for _, node := range ch.drain {
		left, err := f.Drain(ctx, node)
		if err != nil {
			return nil, err
		}
		for pod, why := range left {
			stay[pod] = why
		}
	}
	return stay, nil
}

// kubectlError is what kubectl ends with.
type kubectlError struct{ message string }

// kubectlOn runs kubectl with a configuration in place of the user's. What it prints goes
// to the standard error: the standard output has what would happen.
func kubectlOn(cfg *rest.Config, args []string) (err error) {
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stderr, ErrOut: os.Stderr}
	flags := genericclioptions.NewConfigFlags(true).WithWarningPrinter(streams).WithWrapConfigFn(func(*rest.Config) *rest.Config { return cfg })
	kubectlutil.BehaviorOnFatal(func(message string, _ int) { panic(kubectlError{message}) })
	defer kubectlutil.DefaultBehaviorOnFatal()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case kubectlError:
			err = errors.New(strings.TrimSpace(p.message))
		default:
			panic(p)
		}
	}()
	c := kubectl.NewKubectlCommand(kubectl.KubectlOptions{ConfigFlags: flags, IOStreams: streams})
	c.SetArgs(args)
	c.SilenceUsage = true
	return c.Execute()
}

// printReport prints what would happen.
func printReport(w io.Writer, r *whatif.Report, stay map[string]string) {
	list := func(title string, names []string) {
		for i, n := range names {
			if i == 20 {
				fmt.Fprintf(w, "  … and %d more\n", len(names)-i)
				break
			}
			if i == 0 {
				fmt.Fprintln(w, title)
			}
			fmt.Fprintln(w, "  "+n)
		}
	}
	list("created", r.Created)
	list("changed", r.Changed)
	list("deleted", r.Deleted)
	for i, p := range r.Pods {
		if i == 0 {
			fmt.Fprintln(w, "pods")
		}
		fmt.Fprintf(w, "  %s: %d → %d (%d created, %d deleted)%s\n", p.Owner, p.Before, p.After, p.Created, p.Deleted, placement(p.On))
	}
	for i, n := range r.Nodes {
		if i == 0 {
			fmt.Fprintln(w, "pods on nodes")
		}
		if i == 20 {
			fmt.Fprintf(w, "  … and %d more\n", len(r.Nodes)-i)
			break
		}
		fmt.Fprintf(w, "  %s: %d → %d\n", n.Name, n.Before, n.After)
	}
	problems := func(title string, all []whatif.Problem) {
		for i, p := range all {
			if i == 0 {
				fmt.Fprintln(w, title)
			}
			fmt.Fprintf(w, "  %s\n    %s\n", printers.EscapeTerminal(p.Message), some(p.Objects))
		}
	}
	problems("find no node", r.Pending)
	problems("warnings", r.Warnings)
	for i, pod := range slices.Sorted(maps.Keys(stay)) {
		if i == 0 {
			fmt.Fprintln(w, "not evicted")
		}
		fmt.Fprintf(w, "  %s: %s\n", pod, stay[pod])
	}
	if len(r.Created)+len(r.Changed)+len(r.Deleted)+len(r.Pods)+len(r.Warnings)+len(stay) == 0 {
		fmt.Fprintln(w, "nothing would happen")
	} else {
		fmt.Fprintf(w, "at rest after %s\n", r.Took.Round(10*time.Millisecond))
	}
	list("not asked, and could have refused or changed objects: webhooks", r.Webhooks)
}

// placement says on which nodes pods are.
func placement(on map[string]int) string {
	if len(on) == 0 {
		return ""
	}
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(on)) {
		parts = append(parts, fmt.Sprintf("%s %d", n, on[n]))
	}
	return ", on " + some(parts)
}

// some joins the first names, and says how many more there are.
func some(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
