package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/controller-manager/pkg/clientbuilder"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/nodeipam"
	"keelson.dev/keelson/internal/flagvalue"
	"keelson.dev/keelson/internal/network/lb"
	"keelson.dev/keelson/internal/trace"
)

// Options configures the controllers that run in a process of their
// own, under the names of kube-controller-manager's flags.
type Options struct {
	component.Options
	// Controllers selects them; see Select.
	Controllers []string
	// Tuning configures them; nil is their default.
	Tuning *controllers.Tuning
	// NodeIPAM selects the ranges that nodes get theirs of pods' addresses from, and
	// ServiceCIDRs are the ranges of the Services, which they get nothing of.
	NodeIPAM     nodeipam.Selection
	ServiceCIDRs []string
	// LoadBalancer configures what gives Services of the type LoadBalancer their
	// addresses.
	LoadBalancer lb.Options
	// UseServiceAccountCredentials has each controller act as its own service
	// account of kube-system, by tokens, in place of the kubeconfig's user.
	UseServiceAccountCredentials bool
	// RootCAFile is the bundle, in PEM, that is published to each namespace; empty
	// is the kubeconfig's authority.
	RootCAFile string
	// ClusterSigningCertFile and ClusterSigningKeyFile are of the authority that
	// signs requests for certificates. Without them none is signed.
	ClusterSigningCertFile, ClusterSigningKeyFile string
	// ServiceAccountPrivateKeyFile signs the tokens in Secrets. Without it Secrets
	// get none.
	ServiceAccountPrivateKeyFile string
}

// Validate reports the values that cannot be.
func (o *Options) Validate() error {
	var errs []error
	if _, err := Select(o.Controllers); err != nil {
		errs = append(errs, fmt.Errorf("--controllers: %w", err))
	}
	if (o.ClusterSigningCertFile == "") != (o.ClusterSigningKeyFile == "") {
		errs = append(errs, errors.New("--cluster-signing-cert-file and --cluster-signing-key-file must be specified together"))
	}
	if o.Tuning != nil {
		errs = append(errs, o.Tuning.Validate())
	}
	_, err := o.NodeIPAM.Ranges()
	_, services := o.serviceRanges()
	return errors.Join(append(errs, err, services, o.Options.Validate())...)
}

func (o *Options) serviceRanges() (out []netip.Prefix, err error) {
	for _, s := range o.ServiceCIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--service-cluster-ip-range %q: %w: give a range like 10.96.0.0/16", s, err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Run runs the controllers in a process of their own until ctx is done.
func (o *Options) Run(ctx context.Context) error {
	if err := o.Validate(); err != nil {
		return err
	}
	return o.Options.Run(ctx, "kube-controller-manager", func(t component.Term, cfg *rest.Config, client kubernetes.Interface) error {
		c, err := o.context(t.Ctx, cfg, client)
		if err != nil {
			return err
		}
		return Start(t, c, o.Controllers...)
	})
}

// Start starts the selected controllers for a term, with the term's informers and metrics.
func Start(t component.Term, c controllers.Context, selection ...string) error {
	c.Informers, c.Metrics = t.Informers, t.Metrics
	m, err := New(c, selection...)
	if err != nil {
		return err
	}
	t.Go(func() { m.Run(t.Ctx) })
	return nil
}

// context returns the controllers' Context without the informers. cfg and client
// are the kubeconfig user's.
func (o *Options) context(ctx context.Context, cfg *rest.Config, client kubernetes.Interface) (controllers.Context, error) {
	configs := func(string) *rest.Config { return rest.CopyConfig(cfg) }
	if o.UseServiceAccountCredentials {
		own, err := o.accounts(ctx, cfg, client)
		if err != nil {
			return controllers.Context{}, err
		}
		configs = func(identity string) *rest.Config { return rest.CopyConfig(own[identity]) }
	}
	c := controllers.Context{
		Clients: func(identity string) kubernetes.Interface { return kubernetes.NewForConfigOrDie(configs(identity)) },
		Metadatas: func(identity string) metadata.Interface {
			return metadata.NewForConfigOrDie(metadata.ConfigFor(configs(identity)))
		},
		Configs:   configs,
		Discovery: client.Discovery(),
		Clock:     clock.RealClock{},

		LoadBalancer: &o.LoadBalancer,
		RootCA:       cfg.CAData,
		Tuning:       o.Tuning,
	}
	var err error
	if c.PodRanges, err = o.NodeIPAM.Ranges(); err != nil {
		return c, err
	}
	if c.ServiceRanges, err = o.serviceRanges(); err != nil {
		return c, err
	}
	if file := cmp.Or(o.RootCAFile, cfg.CAFile); file != "" {
		if c.RootCA, err = os.ReadFile(file); err != nil {
			return c, fmt.Errorf("--root-ca-file: %w", err)
		}
	}
	if o.ClusterSigningCertFile != "" {
		if c.Sign, err = certs.Signer(o.ClusterSigningCertFile, o.ClusterSigningKeyFile); err != nil {
			return c, fmt.Errorf("--cluster-signing-cert-file: %w", err)
		}
	}
	if o.ServiceAccountPrivateKeyFile != "" {
		tokens, err := token.New(nil, token.Selection{SigningKeyFile: o.ServiceAccountPrivateKeyFile}, nil, clock.RealClock{})
		if err != nil {
			return c, fmt.Errorf("--service-account-private-key-file: %w", err)
		}
		c.LegacyToken = tokens.Legacy
	}
	return c, nil
}

// accounts returns the configurations of the controllers' service accounts, which
// are made where they are absent: as long as that fails it tries again.
func (o *Options) accounts(ctx context.Context, cfg *rest.Config, client kubernetes.Interface) (map[string]*rest.Config, error) {
	base := rest.AnonymousClientConfig(cfg)
	base.Wrap(trace.Transport)
	builder := clientbuilder.NewDynamicClientBuilder(base, client.CoreV1(), metav1.NamespaceSystem)
	own := map[string]*rest.Config{}
	for _, identity := range Identities() {
		err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
			c, err := builder.Config(identity)
			if err != nil {
				klog.FromContext(ctx).Error(err, "No client of a controller's account; trying again", "account", identity)
			}
			own[identity] = c
			return err == nil, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return own, nil
}

// AddFlags adds kube-controller-manager's flags, but for those of component.Options
// and Election.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.Controllers, "controllers", nil, "controllers to run: '*' is all, 'foo' is that one, '-foo' leaves it out. There are: "+strings.Join(Names(), ", "))
	tuning := controllers.DefaultTuning()
	o.Tuning = &tuning
	o.Tuning.AddFlags(fs)
	o.NodeIPAM.NoAllocation = true // upstream's default
	o.NodeIPAM.AddFlags(fs)
	o.LoadBalancer.Mode = lb.None // upstream's default is that of no cloud
	o.LoadBalancer.AddFlags(fs)
	flagvalue.WordVar(fs, new(bool), "cloud-provider", "external", "there is no built-in cloud provider: give external, and run the cloud's own controller manager",
		"external, where a cloud's controller manager runs: what it does is left to it either way, and load balancers by --load-balancer")
	fs.StringSliceVar(&o.ServiceCIDRs, "service-cluster-ip-range", nil, "ranges of the Services' addresses, which --allocate-node-cidrs leaves out")
	fs.BoolVar(&o.UseServiceAccountCredentials, "use-service-account-credentials", false, "let each controller act as its own service account of kube-system")
	fs.StringVar(&o.RootCAFile, "root-ca-file", "", "bundle in PEM that is published to each namespace (default: the kubeconfig's authority)")
	fs.StringVar(&o.ClusterSigningCertFile, "cluster-signing-cert-file", "", "certificate in PEM of the authority that signs requests for certificates; without it none is signed")
	fs.StringVar(&o.ClusterSigningKeyFile, "cluster-signing-key-file", "", "its key in PEM")
	fs.StringVar(&o.ServiceAccountPrivateKeyFile, "service-account-private-key-file", "", "key in PEM that signs the tokens in Secrets of service accounts; without it they get none")
}
