package shutdown

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/statefile"
)

// Login is what a shutdown is announced and delayed by.
type Login interface {
	// Delay returns how long shutdowns can be delayed.
	Delay(ctx context.Context) (time.Duration, error)
	// SetDelay makes that longer.
	SetDelay(ctx context.Context, d time.Duration) error
	// Inhibit delays the next shutdown until release is called.
	Inhibit(ctx context.Context) (release func() error, err error)
	// Watch returns a channel that receives true when a shutdown begins, and false when
	// it is given up. It is closed when the connection ends.
	Watch(ctx context.Context) (<-chan bool, error)
	Close() error
}

// Pods are the node's pods.
type Pods interface {
	// Active returns the pods that have not ended.
	Active() []*v1.Pod
	// End ends a pod, whose containers have so many seconds at most.
	End(pod *v1.Pod, grace int64, reason, message string, condition *v1.PodCondition)
	// Ended reports whether nothing of the pod runs, and its volumes are gone.
	Ended(uid types.UID) bool
}

// The reasons and messages of what a shutdown ends, and keeps off.
const (
	Reason          = "Terminated"
	message         = "Pod was terminated in response to imminent node shutdown."
	Rejected        = "NodeShutdown"
	RejectedMessage = "Pod was rejected as the node is shutting down."
	// NotReady is why the node is not ready meanwhile.
	NotReady = "node is shutting down"
)

const (
	// reconnect is the pause before a connection to logind that has ended is made again.
	reconnect = time.Second
	// delayPoll and delayTries bound the wait for logind to have read its configuration.
	delayPoll, delayTries = 500 * time.Millisecond, 20
	// endPoll is how often the end of pods is looked for.
	endPoll = 100 * time.Millisecond
	// stateFile keeps when the last shutdown began and was over.
	stateFile = "graceful_shutdown_state"
)

// Config configures a Manager.
type Config struct {
	Settings
	Connect func() (Login, error)
	Pods    Pods
	// Dir is the folder of what is kept of the last shutdown.
	Dir string
	// Changed is called when a shutdown has begun, or was given up.
	Changed func()
	// Began and Finished are told when the last shutdown began and was over.
	Began, Finished func(time.Time)
	Node            *v1.ObjectReference
	Recorder        record.EventRecorder
	Clock           clock.WithTicker
}

// Manager ends pods before the machine shuts down.
type Manager struct {
	Config
	now atomic.Bool
}

// New makes a manager.
func New(c Config) *Manager { return &Manager{Config: c} }

// Now reports whether the machine is shutting down.
func (m *Manager) Now() bool { return m.now.Load() }

// Run delays shutdowns until ctx ends, if the settings have time for pods. Where logind
// does not answer it says so once, and goes on trying.
func (m *Manager) Run(ctx context.Context) {
	if m.Total() == 0 {
		return
	}
	m.recall()
	log := klog.FromContext(ctx)
	said := false
	for ctx.Err() == nil {
		err := m.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if !said || err == nil {
			log.Error(err, "Shutdowns of the machine are not noticed: pods are not ended before them; trying again")
		}
		said = err != nil
		select {
		case <-m.Clock.After(reconnect):
		case <-ctx.Done():
		}
	}
}

// serve delays shutdowns over one connection, until that ends.
func (m *Manager) serve(ctx context.Context) error {
	login, err := m.Connect()
	if err != nil {
		return err
	}
	defer login.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := m.delay(ctx, login); err != nil {
		return err
	}
	release, err := login.Inhibit(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = release() }() // the connection ends, and with it the delay
	events, err := login.Watch(ctx)
	if err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Shutdowns of the machine are delayed for pods to end", "period", m.Total())
	for begins := range events {
		if m.now.Store(begins); begins {
			m.Recorder.Event(m.Node, v1.EventTypeNormal, Rejected, "Shutdown manager detected shutdown event")
		} else {
			m.Recorder.Event(m.Node, v1.EventTypeNormal, Rejected, "Shutdown manager detected shutdown cancellation")
		}
		m.Changed()
		if begins {
			m.end(ctx)
		}
		// The shutdown goes on now; where it was given up the next one is delayed again.
		err := release()
		release = func() error { return nil }
		if err == nil && !begins {
			release, err = login.Inhibit(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// delay makes logind allow for delays as long as the settings need.
func (m *Manager) delay(ctx context.Context, login Login) error {
	has, err := login.Delay(ctx)
	if err != nil || has >= m.Total() {
		return err
	}
	if err := login.SetDelay(ctx, m.Total()); err != nil {
		return err
	}
	for range delayTries {
		if has, err = login.Delay(ctx); err != nil || has >= m.Total() {
			return err
		}
		select {
		case <-m.Clock.After(delayPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("node shutdown manager was unable to update logind InhibitDelayMaxSec to %v (ShutdownGracePeriod), current value of InhibitDelayMaxSec (%v) is less than requested ShutdownGracePeriod", m.Total(), has)
}

// shutdownState is what is kept of a shutdown.
type shutdownState struct {
	StartTime time.Time `json:"startTime"`
	EndTime   time.Time `json:"endTime"`
}

// recall tells of the last shutdown.
func (m *Manager) recall() {
	if s, err := statefile.Read[shutdownState](filepath.Join(m.Dir, stateFile)); err == nil && s != nil {
		m.Began(s.StartTime)
		m.Finished(s.EndTime)
	}
}

func (m *Manager) keep(ctx context.Context, s shutdownState) {
	if err := errors.Join(os.MkdirAll(m.Dir, 0o750), statefile.Write(filepath.Join(m.Dir, stateFile), &s)); err != nil {
		klog.FromContext(ctx).Error(err, "Keeping what is known of the shutdown failed")
	}
}

// end ends all pods, one group after the other, each within its time.
func (m *Manager) end(ctx context.Context) {
	s := shutdownState{StartTime: m.Clock.Now()}
	m.Began(s.StartTime)
	m.keep(ctx, s)
	for _, g := range m.groups(m.Pods.Active()) {
		if len(g.pods) > 0 {
			m.endGroup(ctx, g)
		}
	}
	s.EndTime = m.Clock.Now()
	m.Finished(s.EndTime)
	m.keep(ctx, s)
}

// group are pods that have the same time to end, in seconds.
type group struct {
	seconds int64
	pods    []*v1.Pod
}

// groups divides pods by their priorities, the lowest first: each is in the highest group
// of the settings whose priority is not above its own, else in the lowest.
func (m *Manager) groups(pods []*v1.Pod) []group {
	sorted := slices.SortedFunc(slices.Values(m.ByPriority()), func(a, b Group) int { return cmp.Compare(a.Priority, b.Priority) })
	out := make([]group, len(sorted))
	for i, g := range sorted {
		out[i].seconds = g.Seconds
	}
	for _, pod := range pods {
		p := int32(0)
		if pod.Spec.Priority != nil {
			p = *pod.Spec.Priority
		}
		i := 0
		for i+1 < len(sorted) && sorted[i+1].Priority <= p {
			i++
		}
		out[i].pods = append(out[i].pods, pod)
	}
	return out
}

// endGroup ends pods and waits for their end, no longer than their time.
func (m *Manager) endGroup(ctx context.Context, g group) {
	for _, pod := range g.pods {
		m.Pods.End(pod, min(g.seconds, podspec.GracePeriod(pod)), Reason, message,
			&v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonTerminationByKubelet, Message: message, ObservedGeneration: pod.Generation})
	}
	over := m.Clock.After(time.Duration(g.seconds) * time.Second)
	for {
		left := slices.ContainsFunc(g.pods, func(p *v1.Pod) bool { return !m.Pods.Ended(p.UID) })
		if !left {
			return
		}
		select {
		case <-over:
			klog.FromContext(ctx).Info("Pods have not ended in the time that they have before a shutdown", "seconds", g.seconds)
			return
		case <-m.Clock.After(endPoll):
		case <-ctx.Done():
			return
		}
	}
}
