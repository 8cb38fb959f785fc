package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/clientbuilder"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/apiserver/certs"
	"keelson.dev/keelson/internal/apiserver/token"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/manager"
	"keelson.dev/keelson/internal/controllers/nodeipam"
	"keelson.dev/keelson/internal/trace"
)

// Component configures a part of the control plane that runs in a process of
// its own, against the API server of any Kubernetes cluster, under the names of
// upstream's flags.
type Component struct {
	// Kubeconfig is a file; without one the account of the pod that the process
	// runs in is used.
	Kubeconfig string
	// Master is the URL of the API server, in place of the kubeconfig's.
	Master string
	// QPS and Burst limit the requests a second; 0 is no limit.
	QPS   float32
	Burst int
	Election
}

// config reads the client configuration of the component called name. Its
// requests carry what they are made for.
func (o *Component) config(name string) (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags(o.Master, o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("no API server to talk to: %w: give --kubeconfig", err)
	}
	cfg.UserAgent = rest.DefaultKubernetesUserAgent()
	rest.AddUserAgent(cfg, name)
	if cfg.QPS, cfg.Burst = o.QPS, o.Burst; o.QPS == 0 {
		cfg.QPS = -1
	}
	cfg.Wrap(trace.Transport)
	return cfg, nil
}

// run starts a component, which name is the Lease of, and returns when it has
// ended, after ctx is done.
func (o *Component) run(ctx context.Context, name string, start func(t term, cfg *rest.Config, client kubernetes.Interface) error) error {
	cfg, err := o.config(name)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	if _, err := client.Discovery().ServerVersion(); err != nil {
		return fmt.Errorf("asking the API server at %s: %w", cfg.Host, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	l := &leader{ctx: ctx, wg: &wg, clock: clock.RealClock{}, metrics: prometheus.NewRegistry(), Election: o.Election,
		informers: func() informers.SharedInformerFactory {
			return informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(unmanaged))
		}}
	if err := l.lead(name, client, func(t term) error { return start(t, cfg, client) }); err != nil {
		return err
	}
	<-ctx.Done()
	wg.Wait()
	return nil
}

// RunScheduler runs the scheduler until ctx is done.
func RunScheduler(ctx context.Context, o Component) error {
	if err := o.Validate(); err != nil {
		return err
	}
	return o.run(ctx, "kube-scheduler", func(t term, _ *rest.Config, client kubernetes.Interface) error {
		return t.startScheduler(client, clock.RealClock{})
	})
}

// ControllerManager configures the controllers that run in a process of their
// own, under the names of kube-controller-manager's flags.
type ControllerManager struct {
	Component
	// Controllers selects them; see manager.Select.
	Controllers []string
	// NodeIPAM selects the ranges that nodes get theirs of pods' addresses from, and
	// ServiceCIDRs are the ranges of the Services, which they get nothing of.
	NodeIPAM     nodeipam.Selection
	ServiceCIDRs []string
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
func (o *ControllerManager) Validate() error {
	var errs []error
	if _, err := manager.Select(o.Controllers); err != nil {
		errs = append(errs, fmt.Errorf("--controllers: %w", err))
	}
	if (o.ClusterSigningCertFile == "") != (o.ClusterSigningKeyFile == "") {
		errs = append(errs, errors.New("--cluster-signing-cert-file and --cluster-signing-key-file must be specified together"))
	}
	_, err := o.NodeIPAM.Ranges()
	_, services := o.serviceRanges()
	return errors.Join(append(errs, err, services, o.Component.Validate())...)
}

func (o *ControllerManager) serviceRanges() (out []netip.Prefix, err error) {
	for _, s := range o.ServiceCIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--service-cluster-ip-range %q: %w: give a range like 10.96.0.0/16", s, err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// RunControllers runs the controllers until ctx is done.
func RunControllers(ctx context.Context, o ControllerManager) error {
	if err := o.Validate(); err != nil {
		return err
	}
	return o.run(ctx, "kube-controller-manager", func(t term, cfg *rest.Config, client kubernetes.Interface) error {
		c, err := o.context(t.ctx, cfg, client)
		if err != nil {
			return err
		}
		c.Informers = t.informers
		m, err := manager.New(c, o.Controllers...)
		if err != nil {
			return err
		}
		t.wg.Go(func() { m.Run(t.ctx) })
		return nil
	})
}

// context gives the controllers' Context without the informers. cfg and client
// are the kubeconfig user's.
func (o *ControllerManager) context(ctx context.Context, cfg *rest.Config, client kubernetes.Interface) (controllers.Context, error) {
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
		RootCA:    cfg.CAData,
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

// accounts gives the configurations of the controllers' service accounts, which
// are made where they are absent: as long as that fails it tries again.
func (o *ControllerManager) accounts(ctx context.Context, cfg *rest.Config, client kubernetes.Interface) (map[string]*rest.Config, error) {
	base := rest.AnonymousClientConfig(cfg)
	base.Wrap(trace.Transport)
	builder := clientbuilder.NewDynamicClientBuilder(base, client.CoreV1(), metav1.NamespaceSystem)
	own := map[string]*rest.Config{}
	for _, identity := range manager.Identities() {
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

// unmanaged drops the managed fields of what informers hold: no component reads
// them, and the API server takes their absence in an update for no change.
func unmanaged(obj any) (any, error) {
	if acc, err := meta.Accessor(obj); err == nil {
		acc.SetManagedFields(nil)
	}
	return obj, nil
}
