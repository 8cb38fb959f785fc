package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/cluster/inprocess"
)

// The times of upstream's leader election.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// term is the time for which a component that one server runs for the whole
// cluster runs on this one, and what it runs with.
type term struct {
	ctx       context.Context
	wg        *sync.WaitGroup
	informers *inprocess.Informers
	metrics   prometheus.Registerer
}

// lead runs the component that start starts: from now on where this is the only
// server, else whenever this one holds the Lease called name.
func (c *Cluster) lead(name string, u user.Info, start func(term) error) error {
	if c.Etcd == nil {
		return start(term{c.ctx, &c.wg, c.Informers, c.Server.Metrics})
	}
	client := c.Client(u)
	// Who gives up a lease says so when everything else has ended.
	last, end := context.WithCancel(context.WithoutCancel(c.ctx))
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: hostname() + "_" + string(uuid.NewUUID()), EventRecorder: term{ctx: last, wg: &c.wg}.recorder(client, name, "")},
	}
	var running sync.Mutex // a term begins when the one before has ended
	serve := func() error {
		ctx, end := context.WithCancel(c.ctx)
		defer end()
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, Name: name, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					running.Lock()
					defer running.Unlock()
					defer end()
					c.serveTerm(ctx, name, start)
				},
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return err
		}
		elector.Run(ctx)
		end()
		running.Lock()
		defer running.Unlock()
		return nil
	}
	c.wg.Go(func() {
		defer end()
		for c.ctx.Err() == nil {
			if err := serve(); err != nil {
				klog.FromContext(c.ctx).Error(err, "Leader election", "lease", name)
				return
			}
			t := c.Clock.NewTimer(retryPeriod)
			select {
			case <-t.C():
			case <-c.ctx.Done():
			}
			t.Stop()
		}
	})
	return nil
}

// serveTerm runs a component until ctx is done. Its informers are its own, since
// a shared one would keep the handlers of every term.
func (c *Cluster) serveTerm(ctx context.Context, name string, start func(term) error) {
	ctx, cancel := context.WithCancel(ctx)
	metrics := &termMetrics{Registerer: c.Server.Metrics}
	informers := inprocess.NewInformers(c.Store, c.Catalogue)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		informers.Shutdown()
		wg.Wait()
		metrics.end()
	}()
	if ctx.Err() != nil {
		return
	}
	if err := start(term{ctx, &wg, informers, metrics}); err != nil {
		klog.FromContext(ctx).Error(err, "Starting as the leader failed; another server may have it", "lease", name)
		return
	}
	informers.StartWithContext(ctx)
	<-ctx.Done()
}

// termMetrics takes a term's metrics away again when it ends.
type termMetrics struct {
	prometheus.Registerer
	mu   sync.Mutex
	mine []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (m *termMetrics) Register(c prometheus.Collector) error {
	if err := m.Registerer.Register(c); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mine = append(m.mine, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (m *termMetrics) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := m.Register(c); err != nil {
			panic(err)
		}
	}
}

func (m *termMetrics) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.mine {
		m.Unregister(c)
	}
}
