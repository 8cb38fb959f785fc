// Package testcluster gives Go tests a whole Kubernetes control plane in their
// own process: API server, controllers, garbage collector, scheduler, and
// simulated nodes on request.
//
//	func TestReconcile(t *testing.T) {
//		c := testcluster.Start(t, testcluster.WithNodes(3))
//		client := kubernetes.NewForConfigOrDie(c.Config)
//		...
//	}
//
// The cluster ends with the test. Nothing is left on disk.
package testcluster

import (
	"context"
	"testing"

	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/store/embedded"
)

// Cluster is a running control plane.
type Cluster struct {
	// Config is an administrator's configuration, over TLS on loopback: it
	// works for any client library, and for kubectl through Kubeconfig.
	Config *rest.Config
	// InProcess is an administrator's configuration without a network between.
	InProcess *rest.Config
	c         *cluster.Cluster
}

// Option changes what Start starts.
type Option func(*cluster.Options)

// WithNodes adds n simulated nodes, whose pods come to Running by themselves.
func WithNodes(n int) Option { return func(o *cluster.Options) { o.SimNodes = n } }

// WithoutControllers leaves out the controllers and the scheduler, for tests
// of the API alone.
func WithoutControllers() Option {
	return func(o *cluster.Options) { o.NoControllers, o.NoScheduler = true, true }
}

// Snapshot is all objects of a cluster at one moment. It is not changed by what is done
// later, and may be the beginning of any number of clusters.
type Snapshot struct{ content *embedded.Content }

// Snapshot returns the objects that the cluster has now, which takes microseconds for
// each thousand: nothing is copied.
func (c *Cluster) Snapshot(t testing.TB) *Snapshot {
	t.Helper()
	content, err := c.c.Store.(*embedded.Store).Content(t.Context(), 0)
	if err != nil {
		t.Fatalf("testcluster: %v", err)
	}
	return &Snapshot{content}
}

// From begins with the objects of a snapshot: a test gets what others have prepared,
// and changes it without their seeing it.
func From(s *Snapshot) Option { return func(o *cluster.Options) { o.From = s.content } }

// Start starts a cluster that ends with the test. It fails the test if it
// cannot.
func Start(t testing.TB, options ...Option) *Cluster {
	t.Helper()
	o := cluster.Options{Options: controlplane.Options{Listen: "127.0.0.1:0", NoDrain: true}}
	for _, f := range options {
		f(&o)
	}
	c, err := cluster.Start(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatalf("testcluster: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Errorf("testcluster: stopping: %v", err)
		}
	})
	cfg, err := c.RESTConfig()
	if err != nil {
		t.Fatalf("testcluster: %v", err)
	}
	return &Cluster{Config: cfg, InProcess: c.Config(inprocess.Admin), c: c}
}
