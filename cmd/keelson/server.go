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

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"

	"keelson.dev/keelson/internal/apiserver/admission"
	"keelson.dev/keelson/internal/apiserver/auditing"
	"keelson.dev/keelson/internal/apiserver/authn"
	"keelson.dev/keelson/internal/apiserver/authz"
	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/priority"
	"keelson.dev/keelson/internal/apiserver/serving"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/controllers/manager"
	"keelson.dev/keelson/internal/store/etcd"
)

const defaultDataDir = "/var/lib/keelson"

// contextName is the name of the cluster in kubeconfigs.
const contextName = "keelson"

type serverFlags struct {
	dataDir, listen, advertise, serviceCIDR string
	simNodes                                int
	disable                                 []string
	node                                    nodeFlags
	controllers                             []string
	noSync                                  bool
	level                                   logLevel
	admission                               admission.Selection
	authentication                          authn.Selection
	anonymous                               bool
	audit                                   auditing.Selection
	fairness                                priority.Selection
	shutdownDelay                           time.Duration
	serving                                 serving.Selection
	fair                                    bool
	encryptionConfig                        string
	reloadEncryption                        bool
	authorization                           authz.Selection
	etcd                                    etcd.Options
	api                                     apiServerFlags
	tokens                                  token.Selection
	version                                 bool
	compaction                              time.Duration
}

func (f *serverFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dataDir, "data-dir", defaultDataDir, "folder of the store, the certificates and the node's state; empty keeps everything in memory")
	c.Flags().StringVar(&f.listen, "listen", "0.0.0.0:6443", "address of the API server")
	c.Flags().StringVar(&f.advertise, "advertise-address", "", "address that nodes and pods reach the API server by (default: the machine's)")
	c.Flags().StringVar(&f.serviceCIDR, "service-cidr", "10.96.0.0/16", "range of the services' addresses")
	c.Flags().IntVar(&f.simNodes, "sim-nodes", 0, "number of simulated nodes")
	c.Flags().StringSliceVar(&f.disable, "disable", nil, "components to leave out: controllers, scheduler. Each can run in a process of its own: keelson controllers, keelson scheduler")
	f.node.add(c.Flags())
	c.Flags().StringSliceVar(&f.controllers, "controllers", []string{"*"}, "controllers to run: * is all, foo has the controller foo run, -foo keeps it from running. All controllers: "+
		strings.Join(manager.Names(), ", "))
	names := strings.Join(admission.Names(), ", ")
	c.Flags().StringSliceVar(&f.admission.Enable, "enable-admission-plugins", nil, "admission plugins to enable besides those that are on by default ("+
		strings.Join(admission.DefaultNames(), ", ")+"). Comma-delimited list of admission plugins: "+names+". Their order here does not matter.")
	c.Flags().StringSliceVar(&f.admission.Disable, "disable-admission-plugins", nil, "admission plugins to disable although they are on by default")
	c.Flags().StringVar(&f.admission.ConfigFile, "admission-control-config-file", "", "file with the admission plugins' configuration (AdmissionConfiguration)")
	f.addAuthentication(c)
	f.addAudit(c)
	c.Flags().StringSliceVar(&f.authorization.Modes, "authorization-mode", nil, "authorizers to ask, in this order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny (default: "+strings.Join(authz.DefaultModes, ",")+")")
	c.Flags().StringVar(&f.authorization.ConfigFile, "authorization-config", "", "file with an AuthorizationConfiguration, in place of the other authorization flags")
	c.Flags().StringVar(&f.authorization.WebhookConfigFile, "authorization-webhook-config-file", "", "kubeconfig of the authorization webhook")
	c.Flags().StringVar(&f.authorization.WebhookVersion, "authorization-webhook-version", "v1", "version of the SubjectAccessReview that the webhook is sent")
	c.Flags().DurationVar(&f.authorization.AuthorizedTTL, "authorization-webhook-cache-authorized-ttl", 5*time.Minute, "how long the webhook's 'authorized' answers are kept")
	c.Flags().DurationVar(&f.authorization.UnauthorizedTTL, "authorization-webhook-cache-unauthorized-ttl", 30*time.Second, "how long the webhook's 'unauthorized' answers are kept")
	c.Flags().StringSliceVar(&f.etcd.Servers, "etcd-servers", nil, "etcd servers (scheme://ip:port), comma separated, to keep the objects in (default: the store in --data-dir). "+
		"Several servers may share one etcd: copy the folder pki of the first one's --data-dir into the others' before they start")
	c.Flags().StringVar(&f.etcd.CAFile, "etcd-cafile", "", "SSL Certificate Authority file used to secure etcd communication")
	c.Flags().StringVar(&f.etcd.CertFile, "etcd-certfile", "", "SSL certification file used to secure etcd communication")
	c.Flags().StringVar(&f.etcd.KeyFile, "etcd-keyfile", "", "SSL key file used to secure etcd communication")
	c.Flags().StringVar(&f.etcd.Prefix, "etcd-prefix", "/registry", "prefix to prepend to all resource paths in etcd")
	c.Flags().DurationVar(&f.compaction, "etcd-compaction-interval", 5*time.Minute, "how often etcd is compacted, to what it was that time before; 0 is never")
	c.Flags().StringVar(&f.serving.MinTLSVersion, "tls-min-version", "", "least version of TLS: "+strings.Join(cliflag.TLSPossibleVersions(), ", ")+" (default: VersionTLS12)")
	c.Flags().StringSliceVar(&f.serving.CipherSuites, "tls-cipher-suites", nil, "cipher suites of TLS 1.2 and below, comma separated (default: Go's)")
	c.Flags().StringSliceVar(&f.serving.StrictTransport, "strict-transport-security-directives", nil, "directives of the Strict-Transport-Security header, comma separated; none sends no such header")
	c.Flags().Float64Var(&f.serving.GoawayChance, "goaway-chance", 0, "how probably (0 to 0.02) a request over HTTP/2 has its client connect anew, so that clients spread over several servers")
	c.Flags().DurationVar(&f.shutdownDelay, "shutdown-delay-duration", 0, "how long requests are still taken after a signal to end, while /readyz already fails, so that load balancers notice")
	c.Flags().BoolVar(&f.fair, "enable-priority-and-fairness", true, "have requests wait for their turn by FlowSchemas and PriorityLevelConfigurations; false refuses what is beyond --max-requests-inflight and --max-mutating-requests-inflight")
	c.Flags().IntVar(&f.fairness.InFlight, "max-requests-inflight", 400, "together with --max-mutating-requests-inflight, how many requests are answered at once, shared among the priority levels; "+
		"without priority and fairness, how many that change nothing, 0 for no limit")
	c.Flags().IntVar(&f.fairness.MutatingInFlight, "max-mutating-requests-inflight", 200, "see --max-requests-inflight; without priority and fairness, how many requests that change something are answered at once, 0 for no limit")
	c.Flags().StringVar(&f.encryptionConfig, "encryption-provider-config", "", "file with an EncryptionConfiguration: how which resources are encrypted at rest")
	c.Flags().BoolVar(&f.reloadEncryption, "encryption-provider-config-automatic-reload", false, "read that file again when it changes")
	c.Flags().BoolVar(&f.noSync, "unsafe-no-fsync", false, "do not wait for the disk: a crash of the machine may lose what was written last, or all of it. For tests")
	f.level.add(c.Flags())
	c.Flags().BoolVar(&f.version, "version", false, "print the version and end")
	f.addAPIServer(c)
}

func serverCommand() *cobra.Command {
	var f serverFlags
	c := &cobra.Command{
		Use:   "server",
		Short: "Run a cluster in the foreground",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.version {
				fmt.Println("Kubernetes " + cluster.Version.GitVersion)
				return nil
			}
			f.authentication.AnonymousSet = c.Flags().Changed("anonymous-auth")
			for _, line := range withoutEffect(c.Flags()) {
				fmt.Fprintln(os.Stderr, "keelson: "+line)
			}
			return serve(c.Context(), f, c.Flags())
		},
	}
	f.add(c)
	return c
}

// adminKubeconfig is where a server leaves the administrator's configuration.
func adminKubeconfig(dataDir string) string { return filepath.Join(dataDir, "admin.kubeconfig") }

func (f *serverFlags) options(flags *pflag.FlagSet) (cluster.Options, error) {
	f.authentication.NoAnonymous = !f.anonymous
	f.fairness.Off = !f.fair
	if _, err := manager.Select(f.controllers); err != nil {
		return cluster.Options{}, fmt.Errorf("--controllers: %w", err)
	}
	o := cluster.Options{Serving: f.serving, ShutdownDelay: f.shutdownDelay, Fairness: f.fairness, DataDir: f.dataDir, Listen: f.listen, SimNodes: f.simNodes, NoSync: f.noSync, Controllers: f.controllers, Admission: f.admission, Authentication: f.authentication, Authorization: f.authorization, Audit: f.audit,
		EncryptionConfig: f.encryptionConfig, ReloadEncryptionConfig: f.reloadEncryption}
	if err := errors.Join(f.apiOptions(&o, flags.Changed), f.serving.Validate(), f.fairness.Validate(), f.admission.Validate(), f.authentication.Validate()); err != nil {
		return o, err
	}
	o.Flags = map[string]string{}
	flags.VisitAll(func(fl *pflag.Flag) { o.Flags[fl.Name] = fl.Value.String() })
	if len(f.etcd.Servers) > 0 {
		o.Etcd = &f.etcd
		if f.etcd.CompactionInterval = f.compaction; f.compaction == 0 {
			f.etcd.CompactionInterval = -1
		}
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
	var err error
	if o.ServiceCIDR, err = netip.ParsePrefix(f.serviceCIDR); err != nil {
		return o, fmt.Errorf("--service-cidr %q: %w: give a range like 10.96.0.0/16", f.serviceCIDR, err)
	}
	if f.advertise != "" {
		if o.Advertise, err = netip.ParseAddr(f.advertise); err != nil {
			return o, fmt.Errorf("--advertise-address %q: %w: give an IP address", f.advertise, err)
		}
	}
	return o, nil
}

func serve(ctx context.Context, f serverFlags, flags *pflag.FlagSet) error {
	keepLock()
	if err := f.level.set(); err != nil {
		return err
	}
	o, err := f.options(flags)
	if err != nil {
		return err
	}
	m, err := f.node.machine(f.dataDir)
	if err != nil {
		return err
	}
	agent, err := f.node.options(f.dataDir)
	if err != nil {
		return err
	}
	f.api.profileContention()
	paceCollector()
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
	if f.dataDir != "" {
		cfg, err := c.Kubeconfig(contextName)
		if err == nil {
			var data []byte
			if data, err = clientcmd.Write(*cfg); err == nil {
				err = certs.WriteFile(adminKubeconfig(f.dataDir), data, 0o600)
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
	time.AfterFunc(2*time.Second, func() { keepSmall(ctx) })
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
			fmt.Fprintln(os.Stdout, "Keelson, Kubernetes "+cluster.Version.GitVersion)
		},
	}
}
