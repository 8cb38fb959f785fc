package component

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/trace"
)

// Options configures a part of the control plane that runs in a process of
// its own, against the API server of any Kubernetes cluster, under the names of
// upstream's flags.
type Options struct {
	// Kubeconfig is the path of a kubeconfig; without one the process uses the
	// service account of its pod.
	Kubeconfig string
	// Master is the URL of the API server, in place of the kubeconfig's.
	Master string
	// QPS and Burst limit the requests per second; 0 means no limit.
	QPS   float32
	Burst int
	Election
}

// Config returns the client configuration of the component called name. Its
// requests carry their cause (package trace).
func (o *Options) Config(name string) (*rest.Config, error) {
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

// Run starts a component, whose Lease is called name, and returns when it has
// ended, after ctx is done.
func (o *Options) Run(ctx context.Context, name string, start func(t Term, cfg *rest.Config, client kubernetes.Interface) error) error {
	if err := o.Validate(); err != nil {
		return err
	}
	cfg, err := o.Config(name)
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
	p := NewProcess(ctx)
	defer p.Stop()
	l := &Leader{Process: p, Clock: clock.RealClock{}, Metrics: prometheus.NewRegistry(), Election: o.Election,
		Informers: func() informers.SharedInformerFactory { return Informers(client) }}
	if err := l.Lead(name, client, func(t Term) error { return start(t, cfg, client) }); err != nil {
		return err
	}
	<-p.Ctx.Done()
	return nil
}

// Informers returns a factory of informers that hold no managed fields.
func Informers(client kubernetes.Interface) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(unmanaged))
}

// unmanaged removes the managed fields of an informer's object: no component
// reads them, and the API server takes their absence in an update as no change.
func unmanaged(obj any) (any, error) {
	if acc, err := meta.Accessor(obj); err == nil {
		acc.SetManagedFields(nil)
	}
	return obj, nil
}
