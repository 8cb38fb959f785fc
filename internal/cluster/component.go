package cluster

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/trace"
)

// Component says how a part of the control plane runs in a process of its own,
// against the API server of any Kubernetes cluster, under the names of
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
	return o.run(ctx, "kube-scheduler", func(t term, _ *rest.Config, client kubernetes.Interface) error {
		return t.startScheduler(client, clock.RealClock{})
	})
}

// unmanaged drops the managed fields of what informers hold: no component reads
// them, and the API server takes their absence in an update for no change.
func unmanaged(obj any) (any, error) {
	if acc, err := meta.Accessor(obj); err == nil {
		acc.SetManagedFields(nil)
	}
	return obj, nil
}
