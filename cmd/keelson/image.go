package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/imageload"
)

// imageFlags say which node's images are meant.
type imageFlags struct {
	dataDir string
	runtime machine.Options
}

func imageCommand() *cobra.Command {
	var f imageFlags
	c := &cobra.Command{Use: "image", Short: "Images of this machine's node"}
	c.PersistentFlags().StringVar(&f.dataDir, "data-dir", defaultDataDir, "the cluster's, or the agent's, folder")
	c.PersistentFlags().StringVar(&f.runtime.Runtime, "container-runtime-endpoint", "", "CRI socket of the node's runtime (default: the private containerd)")
	c.AddCommand(
		&cobra.Command{
			Use: "load FILE|-", Short: "Give the images of an archive to the node", Args: cobra.ExactArgs(1),
			Long:    "Give the images of an archive to the node. The archive is one of docker save, or of an OCI layout, and may be compressed by gzip; - is the standard input.\n\nA pod uses them with imagePullPolicy IfNotPresent or Never, which is not the default of an image called latest.",
			Example: "  docker save web:1 | keelson image load -\n  keelson image load web.tar",
			RunE:    func(c *cobra.Command, args []string) error { return f.on(c.Context(), load(args[0])) },
		},
		&cobra.Command{
			Use: "list", Aliases: []string{"ls"}, Short: "List the node's images", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return f.on(c.Context(), listImages(c.OutOrStdout())) },
		},
		&cobra.Command{
			Use: "remove IMAGE...", Aliases: []string{"rm"}, Short: "Remove images from the node", Args: cobra.MinimumNArgs(1),
			RunE: func(c *cobra.Command, args []string) error { return f.on(c.Context(), removeImages(args)) },
		},
	)
	return c
}

// on calls do with the node's runtime.
func (f *imageFlags) on(ctx context.Context, do func(context.Context, *cri.Client) error) error {
	dir, err := filepath.Abs(f.dataDir)
	if err != nil {
		return err
	}
	m := machine.New(dir, f.runtime)
	runtime, err := cri.Connect(ctx, m.Endpoint())
	if err != nil {
		return fmt.Errorf("this machine has no node to ask: %w (start it with keelson up, or name its folder with --data-dir)", err)
	}
	defer runtime.Close()
	return do(ctx, runtime)
}

func load(file string) func(context.Context, *cri.Client) error {
	return func(ctx context.Context, runtime *cri.Client) error {
		in := io.Reader(os.Stdin)
		if file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		return imageload.Load(ctx, runtime, in, func(name string) { fmt.Println("loaded " + name) })
	}
}

func listImages(out io.Writer) func(context.Context, *cri.Client) error {
	return func(ctx context.Context, runtime *cri.Client) error {
		r, err := runtime.ListImages(ctx, &runtimeapi.ListImagesRequest{})
		if err != nil {
			return err
		}
		type line struct{ name, id, size string }
		var lines []line
		for _, i := range r.Images {
			names := i.RepoTags
			if len(names) == 0 {
				names = i.RepoDigests
			}
			if len(names) == 0 {
				names = []string{"<none>"}
			}
			for _, n := range names {
				lines = append(lines, line{n, short(i.Id), fmt.Sprintf("%.1f MB", float64(i.Size)/1e6)})
			}
		}
		slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.name, b.name) })
		w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "IMAGE\tID\tSIZE")
		for _, l := range lines {
			fmt.Fprintf(w, "%s\t%s\t%s\n", l.name, l.id, l.size)
		}
		return w.Flush()
	}
}

// short returns an ID as tables have it.
func short(id string) string {
	const prefix, length = len("sha256:"), 13
	if len(id) < prefix+length {
		return id
	}
	return id[prefix : prefix+length]
}

func removeImages(names []string) func(context.Context, *cri.Client) error {
	return func(ctx context.Context, runtime *cri.Client) error {
		var errs []error
		for _, n := range names {
			spec := &runtimeapi.ImageSpec{Image: n}
			r, err := runtime.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
			if err == nil && r.Image == nil {
				err = fmt.Errorf("image %s: the node does not have it: keelson image list shows those it has", n)
			} else if err == nil {
				_, err = runtime.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: spec})
			}
			if err == nil {
				fmt.Println("removed " + n)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
}
