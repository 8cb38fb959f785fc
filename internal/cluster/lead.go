package cluster

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// The times of upstream's leader election.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// term is the time for which a component that one process runs for the whole
// cluster runs in this one, and what it runs with.
type term struct {
	ctx       context.Context
	wg        *sync.WaitGroup
	informers informers.SharedInformerFactory
	metrics   prometheus.Registerer
}

// leader runs components for the whole cluster in this process.
type leader struct {
	ctx     context.Context
	wg      *sync.WaitGroup
	clock   clock.WithTicker
	metrics prometheus.Registerer
	// informers makes the factory of a term: a shared one would keep the handlers
	// of every term.
	informers func() informers.SharedInformerFactory
	// Election is how the processes that may run a component agree on one; the
	// zero value, with LeaderElect false, is for the only one.
	Election
}

// Election configures whether several processes choose one of them to run a
// component, and how, under the names of upstream's flags.
type Election struct {
	LeaderElect                               bool
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
	// Namespace of the Lease; kube-system if empty.
	Namespace string
}

func (e *Election) complete() {
	e.LeaseDuration = cmp.Or(e.LeaseDuration, leaseDuration)
	e.RenewDeadline = cmp.Or(e.RenewDeadline, renewDeadline)
	e.RetryPeriod = cmp.Or(e.RetryPeriod, retryPeriod)
	e.Namespace = cmp.Or(e.Namespace, metav1.NamespaceSystem)
}

// Validate reports the times that leave no room for one another.
func (e Election) Validate() error {
	e.complete()
	if e.RenewDeadline >= e.LeaseDuration {
		return fmt.Errorf("--leader-elect-renew-deadline %s must be less than --leader-elect-lease-duration %s", e.RenewDeadline, e.LeaseDuration)
	}
	if least := time.Duration(leaderelection.JitterFactor * float64(e.RetryPeriod)); e.RenewDeadline <= least {
		return fmt.Errorf("--leader-elect-renew-deadline %s must be more than %s: %g times --leader-elect-retry-period", e.RenewDeadline, least, leaderelection.JitterFactor)
	}
	return nil
}

// lead runs the component that start starts: from now on where no election is
// held, else whenever this process holds the Lease called name, for which it
// uses client.
func (l *leader) lead(name string, client kubernetes.Interface, start func(term) error) error {
	if !l.LeaderElect {
		t := term{l.ctx, l.wg, l.informers(), l.metrics}
		if err := start(t); err != nil {
			return err
		}
		t.informers.StartWithContext(l.ctx)
		return nil
	}
	l.complete()
	// The Lease is given up, with an event, when everything else has ended.
	last, end := context.WithCancel(context.WithoutCancel(l.ctx))
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: l.Namespace, Name: name},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: hostname() + "_" + string(uuid.NewUUID()), EventRecorder: term{ctx: last, wg: l.wg}.recorder(client, name, "")},
	}
	var running sync.Mutex // a term begins when the one before has ended
	serve := func() error {
		ctx, end := context.WithCancel(l.ctx)
		defer end()
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, Name: name, LeaseDuration: l.LeaseDuration, RenewDeadline: l.RenewDeadline, RetryPeriod: l.RetryPeriod, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					running.Lock()
					defer running.Unlock()
					defer end()
					l.serveTerm(ctx, name, start)
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
	l.wg.Go(func() {
		defer end()
		for l.ctx.Err() == nil {
			if err := serve(); err != nil {
				klog.FromContext(l.ctx).Error(err, "Leader election", "lease", name)
				return
			}
			t := l.clock.NewTimer(l.RetryPeriod)
			select {
			case <-t.C():
			case <-l.ctx.Done():
			}
			t.Stop()
		}
	})
	return nil
}

// serveTerm runs a component until ctx is done.
func (l *leader) serveTerm(ctx context.Context, name string, start func(term) error) {
	ctx, cancel := context.WithCancel(ctx)
	metrics := &termMetrics{Registerer: l.metrics}
	t := term{ctx, &sync.WaitGroup{}, l.informers(), metrics}
	defer func() {
		cancel()
		t.informers.Shutdown()
		t.wg.Wait()
		metrics.end()
	}()
	if ctx.Err() != nil {
		return
	}
	if err := start(t); err != nil {
		klog.FromContext(ctx).Error(err, "Starting as the leader failed; another server may have it", "lease", name)
		return
	}
	t.informers.StartWithContext(ctx)
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
