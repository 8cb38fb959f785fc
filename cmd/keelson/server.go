package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"

	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/cluster/sim"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/manager"
	"keelson.dev/keelson/internal/heap"
	"keelson.dev/keelson/internal/store/etcd"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/version"
)

const defaultDataDir = "/var/lib/keelson"

// contextName is the name of the cluster in kubeconfigs.
const contextName = "keelson"

// serverFlags holds the flags of keelson server and keelson up.
type serverFlags struct {
	cluster.Options
	advertise, serviceCIDR string
	disable                []string
	node                   nodeFlags
	level                  logLevel
	etcd                   etcd.Options
	kube                   apiServerFlags
	version                bool
}

// sets has the flags by the component whose options they are.
func (f *serverFlags) sets() (sets cliflag.NamedFlagSets) {
	fs := sets.FlagSet(general)
	fs.StringVar(&f.DataDir, "data-dir", defaultDataDir, "folder of the store, the certificates and the node's state; empty keeps everything in memory")
	fs.StringVar(&f.Listen, "listen", "0.0.0.0:6443", "address of the API server")
	fs.StringVar(&f.advertise, "advertise-address", "", "address that nodes and pods reach the API server by (default: the machine's)")
	fs.StringVar(&f.serviceCIDR, "service-cidr", "10.96.0.0/16", "range of the services' addresses; a second range, of the other family, after a comma allows services of both families; the first is the default family")
	fs.Var(sim.Range{Least: &f.SimNodes, Most: &f.MostSimNodes}, "sim-nodes", "number of simulated nodes, or the least and the greatest, as 0..500, between which the cluster autoscaler chooses")
	fs.BoolVar(&f.NoSync, "unsafe-no-fsync", false, "do not wait for the disk: a crash of the machine may lose the last writes, or all of them. For tests")
	fs.BoolVar(&f.version, "version", false, "print the version and end")

	f.kube.addFlags(&sets)
	f.API.AddFlags(sets.FlagSet(apiServer))
	fs = sets.FlagSet(apiServer)
	fs.DurationVar(&f.ShutdownDelay, "shutdown-delay-duration", 0, "how long requests are still taken after a signal to end, while /readyz already fails, so that load balancers notice")
	addFixedFlags(fs, fixedFlags, hintFlags)
	f.Serving.AddFlags(sets.FlagSet(secureServing))
	f.Authentication.Bootstrap = true // machines join by tokens
	f.Authentication.AddFlags(sets.FlagSet("authentication"))
	f.Tokens.AddFlags(sets.FlagSet("service accounts"))
	f.Authorization.AddFlags(sets.FlagSet("authorization"))
	f.Admission.AddFlags(sets.FlagSet("admission"))
	f.Fairness.AddFlags(sets.FlagSet("priority and fairness"))
	f.Audit.AddFlags(sets.FlagSet("auditing"))
	f.Past.AddFlags(sets.FlagSet("history"))
	sets.FlagSet("history").IntVar(&f.TraceMemory, "trace-memory", trace.DefaultLimit, "how many bytes of memory the record of what caused what may take (keelson trace); 0 records nothing")
	f.OTLP.AddFlags(sets.FlagSet("history"))
	f.etcd.AddFlags(sets.FlagSet("etcd"))
	f.Encryption.AddFlags(sets.FlagSet("encryption at rest"))
	f.API.Kubelet.AddFlags(sets.FlagSet("kubelet client"))

	fs = sets.FlagSet("controllers")
	fs.StringSliceVar(&f.disable, "disable", nil, "components to leave out: controllers, scheduler. Each can run in a process of its own: keelson controllers, keelson scheduler")
	fs.StringSliceVar(&f.Controllers, "controllers", []string{"*"}, "controllers to run: * enables all, foo enables the controller foo, -foo disables it. All controllers: "+
		strings.Join(manager.Names(), ", "))

	f.NodeIPAM.AddFlags(fs)
	f.LoadBalancer.AddFlags(fs)
	tuning := controllers.DefaultTuning()
	f.Tuning = &tuning
	f.Tuning.AddFlags(fs)
	f.Autoscaling.AddFlags(sets.FlagSet("cluster autoscaler"))

	f.node.addFlags(&sets)
	f.level.add(sets.FlagSet("logging"))
	return sets
}

// add adds the flags to c.
func (f *serverFlags) add(c *cobra.Command) { group(c, f.sets()) }

func serverCommand() *cobra.Command {
	var f serverFlags
	c := &cobra.Command{
		Use:   "server",
		Short: "Run a cluster in the foreground",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.version {
				fmt.Println("Kubernetes " + version.Info.GitVersion)
				return nil
			}
			for _, line := range withoutEffect(c.Flags()) {
				fmt.Fprintln(os.Stderr, "keelson: "+line)
			}
			return serve(c.Context(), &f, c.Flags())
		},
	}
	f.add(c)
	return c
}

// adminKubeconfig returns where a server leaves the administrator's configuration.
func adminKubeconfig(dataDir string) string { return filepath.Join(dataDir, "admin.kubeconfig") }

func (f *serverFlags) options(flags *pflag.FlagSet) (cluster.Options, error) {
	if _, err := manager.Select(f.Controllers); err != nil {
		return cluster.Options{}, fmt.Errorf("--controllers: %w", err)
	}
	o := f.Options
	o.ExternalCloud = f.node.agent.ExternalCloud
	if len(f.node.runtime.PodCIDRs) > 0 && len(o.NodeIPAM.ClusterCIDRs) == 0 {
		o.NodeIPAM.NoAllocation = true // the machine's range is none of the cluster's
	}
	o.NodeIPAM.Complete(max(o.SimNodes, o.MostSimNodes))
	if _, err := o.NodeIPAM.Ranges(); err != nil {
		return o, err
	}
	serviceCIDR, err := f.kube.options(&o, f.serviceCIDR, flags.Changed)
	if err := errors.Join(err, o.API.Validate(), o.Tokens.Validate(), o.Serving.Validate(), o.Fairness.Validate(), o.Admission.Validate(), o.Authentication.Validate(), o.Autoscaling.Validate(), o.Tuning.Validate(), o.OTLP.Validate()); err != nil {
		return o, err
	}
	if o.TraceMemory == 0 {
		o.TraceMemory = -1
	}
	o.Flags = map[string]string{}
	flags.VisitAll(func(fl *pflag.Flag) { o.Flags[fl.Name] = fl.Value.String() })
	if len(f.etcd.Servers) > 0 {
		o.Etcd = &f.etcd
	}
	for _, name := range f.disable {
		switch name {
		case "controllers":
			o.NoControllers = true
		case "scheduler":
			o.NoScheduler = true
		default:
			return o, fmt.Errorf("--disable %q: there are controllers and scheduler", name)
		}
	}
	if o.ServiceCIDR, o.SecondServiceCIDR, err = serviceRanges(serviceCIDR); err != nil {
		return o, err
	}
	if f.advertise != "" {
		if o.Advertise, err = netip.ParseAddr(f.advertise); err != nil {
			return o, fmt.Errorf("--advertise-address %q: %w: give an IP address", f.advertise, err)
		}
	}
	return o, nil
}

// serviceRanges reads --service-cidr: a range, or one of each family.
func serviceRanges(s string) (first, second netip.Prefix, err error) {
	var all []netip.Prefix
	for text := range strings.SplitSeq(s, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return first, second, fmt.Errorf("--service-cidr %q: %w: give a range like 10.96.0.0/16, or two like 10.96.0.0/16,fd00:10:96::/108", s, err)
		}
		all = append(all, p)
	}
	switch {
	case len(all) == 1:
		return all[0], second, nil
	case len(all) > 2:
		return first, second, errors.New("--service-cluster-ip-range must not contain more than two entries")
	case all[0].Addr().Is4() == all[1].Addr().Is4():
		return first, second, errors.New("--service-cluster-ip-range[0] and --service-cluster-ip-range[1] must be of different IP family")
	}
	return all[0], all[1], nil
}

func serve(ctx context.Context, f *serverFlags, flags *pflag.FlagSet) error {
	release, err := serverInstance.claim(f.DataDir)
	if err != nil {
		return err
	}
	defer release()
	if err := f.level.set(); err != nil {
		return err
	}
	o, err := f.options(flags)
	if err != nil {
		return err
	}
	m, err := f.node.machine(f.DataDir)
	if err != nil {
		return err
	}
	agent, err := f.node.options(f.DataDir)
	if err != nil {
		return err
	}
	f.profileContention()
	heap.Pace()
	begin := time.Now()
	o.Progress = func(step string, took time.Duration) {
		fmt.Printf("%-16s %8s\n", step, took.Round(100*time.Microsecond))
	}
	o.Waiting = func(step, why string, since time.Duration) {
		fmt.Printf("waiting for %s, %s%s\n", step, since.Round(time.Second), why)
	}
	// The signal does not end it in the middle of a request: Stop does, in order.
	c, err := cluster.Start(context.WithoutCancel(ctx), o)
	if err != nil {
		return err
	}
	if f.DataDir != "" {
		cfg, err := c.Kubeconfig(contextName)
		if err == nil {
			var data []byte
			if data, err = clientcmd.Write(*cfg); err == nil {
				err = renameio.WriteFile(adminKubeconfig(f.DataDir), data, 0o600)
			}
		}
		if err != nil {
			return errors.Join(fmt.Errorf("writing the administrator's kubeconfig: %w", err), c.Stop())
		}
	}
	if m != nil {
		wait, cancel := context.WithTimeout(ctx, time.Minute)
		err := c.StartAgent(wait, m, agent)
		cancel()
		if err != nil {
			return errors.Join(err, c.Stop())
		}
	}
	fmt.Printf("ready            %8s  API server on %s\n", time.Since(begin).Round(100*time.Microsecond), c.Address)
	time.AfterFunc(2*time.Second, func() { heap.KeepSmall(ctx) })
	select {
	case <-ctx.Done():
	case <-c.Done():
	}
	err = c.Stop()
	if ctx.Err() != nil {
		fmt.Println("stopped")
	}
	return err
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) {
			fmt.Fprintln(os.Stdout, "Keelson, Kubernetes "+version.Info.GitVersion)
		},
	}
}
