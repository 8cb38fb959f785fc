package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"keelson.dev/keelson/internal/envtest"
)

// controllersEnv reports whether a kube-apiserver of envtest has controllers.
const controllersEnv = "KEELSON_CONTROLLERS"

func envtestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "envtest DIR",
		Short: "Make a folder for controller-runtime's envtest: kube-apiserver, etcd and kubectl, which are this program",
		Example: "  keelson envtest bin/envtest\n  KUBEBUILDER_ASSETS=$PWD/bin/envtest go test ./...\n" +
			"  KUBEBUILDER_ASSETS=$PWD/bin/envtest " + controllersEnv + "=true go test ./...   # with controllers and garbage collection",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			if err := envtest.Link(dir, self); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "export KUBEBUILDER_ASSETS=%s\n", dir)
			return nil
		},
	}
}

// command returns the command that the program is called by.
func command(program string) *cobra.Command {
	switch filepath.Base(program) {
	case "kube-apiserver":
		return apiServerCommand()
	case "etcd":
		return etcdCommand()
	}
	return root()
}

// apiServerCommand is keelson server as envtest starts it: under upstream's name,
// without a node, in memory or in the folder of the etcd that it is given, with
// controllers on request, until its parent has ended.
func apiServerCommand() *cobra.Command {
	c := serverCommand()
	c.Use, c.Short, c.SilenceUsage, c.SilenceErrors = "kube-apiserver", "Run an API server that ends with the process that started it", true, true
	c.Long = c.Short
	for name, value := range map[string]string{"data-dir": "", "no-node": "true"} {
		fl := c.Flags().Lookup(name)
		fl.DefValue = value
		_ = fl.Value.Set(value) // a string and a bool take these
	}
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		ctx, cancel, err := envtest.WithParent(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		c.SetContext(ctx)
		if err := forEnvtest(ctx, c.Flags()); err != nil {
			return err
		}
		return run(c, args)
	}
	return c
}

// forEnvtest sets what envtest's environment says.
func forEnvtest(ctx context.Context, flags *pflag.FlagSet) error {
	controllers := false
	if v := os.Getenv(controllersEnv); v != "" {
		var err error
		if controllers, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("%s=%q: give true or false", controllersEnv, v)
		}
	}
	if !controllers && !flags.Changed("disable") {
		if err := flags.Set("disable", "controllers,scheduler"); err != nil {
			return err
		}
	}
	servers, err := flags.GetStringSlice("etcd-servers")
	if err != nil {
		return err
	}
	folder, ok, err := envtest.Find(ctx, servers)
	if err != nil || !ok {
		return err
	}
	if flags.Changed("data-dir") {
		return errors.New("--data-dir and --etcd-servers of keelson's etcd both say where the objects are: give one of both")
	}
	none := flags.Lookup("etcd-servers").Value.(pflag.SliceValue)
	return errors.Join(none.Replace(nil), flags.Set("data-dir", folder.Path), flags.Set("unsafe-no-fsync", strconv.FormatBool(folder.NoSync)))
}

// etcdCommand stands for etcd.
func etcdCommand() *cobra.Command {
	var f envtest.Folder
	var urls []string
	c := &cobra.Command{
		Use:   "etcd",
		Short: "Stand for the etcd of a kube-apiserver that is keelson, which keeps its objects itself",
		Args:  cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel, err := envtest.WithParent(c.Context())
			if err != nil {
				return err
			}
			defer cancel()
			if f.Path, err = filepath.Abs(f.Path); err != nil {
				return err
			}
			return envtest.Serve(ctx, urls, f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.Path, "data-dir", "default.etcd", "folder of the objects")
	flags.BoolVar(&f.NoSync, "unsafe-no-fsync", false, "let a crash of the machine lose what was written last")
	flags.StringSliceVar(&urls, "listen-client-urls", []string{"http://localhost:2379"}, "URLs to answer at, http only")
	for _, name := range []string{"advertise-client-urls", "listen-peer-urls", "initial-advertise-peer-urls", "initial-cluster", "name", "log-level", "logger", "quota-backend-bytes"} {
		add(flags, &hint{why: "there is one server, which keeps no objects", kind: "string"}, name, "without effect")
	}
	return c
}
