package component

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

// Term is one run of a component that a single process runs for the whole
// cluster, with what the component needs. It begins when this process is
// elected, and ends when it loses the election.
type Term struct {
	*Process
	Informers informers.SharedInformerFactory
	Metrics   prometheus.Registerer
}

// Leader runs components for the whole cluster in this process.
type Leader struct {
	Process *Process
	Clock   clock.WithTicker
	Metrics prometheus.Registerer
	// Informers makes the factory of a term: a shared factory would keep the
	// handlers of every term.
	Informers func() informers.SharedInformerFactory
	// Election configures the election among the processes that may run the
	// component; the zero value, with LeaderElect false, is for a single process.
	Election
}

// Election configures leader election, by the names of upstream's flags.
type Election struct {
	LeaderElect                               bool
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
	// Namespace is the namespace of the Lease; default kube-system.
	Namespace string
}

func (e *Election) complete() {
	e.LeaseDuration = cmp.Or(e.LeaseDuration, leaseDuration)
	e.RenewDeadline = cmp.Or(e.RenewDeadline, renewDeadline)
	e.RetryPeriod = cmp.Or(e.RetryPeriod, retryPeriod)
	e.Namespace = cmp.Or(e.Namespace, metav1.NamespaceSystem)
}

// Validate returns an error if the times do not fit together.
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

// Lead runs the component that start starts: from now on without an election,
// else whenever this process holds the Lease called name, for which it uses
// client.
func (l *Leader) Lead(name string, client kubernetes.Interface, start func(Term) error) error {
	if !l.LeaderElect {
		t := Term{l.Process, l.Informers(), l.Metrics}
		if err := start(t); err != nil {
			return err
		}
		t.Informers.StartWithContext(t.Ctx)
		return nil
	}
	l.complete()
	// The Lease is released, with an event, when everything else has ended.
	last := NewProcess(context.WithoutCancel(l.Process.Ctx))
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: l.Namespace, Name: name},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: Hostname() + "_" + string(uuid.NewUUID()), EventRecorder: last.Recorder(client, name, "")},
	}
	var running sync.Mutex // a term begins after the one before has ended
	serve := func() error {
		ctx, end := context.WithCancel(l.Process.Ctx)
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
	l.Process.Go(func() {
		defer last.Stop()
		for l.Process.Ctx.Err() == nil {
			if err := serve(); err != nil {
				klog.FromContext(l.Process.Ctx).Error(err, "Leader election", "lease", name)
				return
			}
			t := l.Clock.NewTimer(l.RetryPeriod)
			select {
			case <-t.C():
			case <-l.Process.Ctx.Done():
			}
			t.Stop()
		}
	})
	return nil
}

// serveTerm runs a component until ctx is done.
func (l *Leader) serveTerm(ctx context.Context, name string, start func(Term) error) {
	metrics := &termMetrics{Registerer: l.Metrics}
	t := Term{NewProcess(ctx), l.Informers(), metrics}
	defer func() {
		t.End()
		t.Informers.Shutdown()
		t.Wait()
		metrics.end()
	}()
	if ctx.Err() != nil {
		return
	}
	if err := start(t); err != nil {
		klog.FromContext(ctx).Error(err, "Starting as the leader failed; another server may have it", "lease", name)
		return
	}
	t.Informers.StartWithContext(t.Ctx)
	<-t.Ctx.Done()
}

// termMetrics unregisters a term's metrics when it ends.
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
