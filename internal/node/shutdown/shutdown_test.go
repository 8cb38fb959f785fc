package shutdown

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

// login is a machine whose shutdowns a test begins.
type login struct {
	limit, delay time.Duration
	inhibited    int
	events       chan bool
	fail         error
}

func (l *login) Delay(context.Context) (time.Duration, error) { return l.delay, l.fail }

func (l *login) SetDelay(_ context.Context, d time.Duration) error {
	l.delay = min(d, l.limit)
	return nil
}

func (l *login) Inhibit(context.Context) (func() error, error) {
	l.inhibited++
	released := false
	return func() error {
		if !released {
			released = true
			l.inhibited--
		}
		return nil
	}, nil
}

func (l *login) Watch(context.Context) (<-chan bool, error) { return l.events, nil }
func (l *login) Close() error                               { return nil }

// pods end so many seconds after they were told to.
type pods struct {
	list  []*v1.Pod
	takes map[types.UID]time.Duration
	begun time.Time
	log   []string
	over  map[types.UID]time.Time
}

func (p *pods) Active() []*v1.Pod { return p.list }

func (p *pods) End(pod *v1.Pod, grace int64, reason, message string, c *v1.PodCondition) {
	if reason != "Terminated" || message != "Pod was terminated in response to imminent node shutdown." || c.Type != v1.DisruptionTarget || c.Reason != "TerminationByKubelet" {
		p.log = append(p.log, fmt.Sprint(reason, message, c))
	}
	p.log = append(p.log, fmt.Sprintf("%s at %v with %d", pod.UID, time.Since(p.begun), grace))
	p.over[pod.UID] = time.Now().Add(p.takes[pod.UID])
}

func (p *pods) Ended(uid types.UID) bool { return !time.Now().Before(p.over[uid]) }

func pod(uid types.UID, priority int32, grace int64) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Spec: v1.PodSpec{Priority: &priority, TerminationGracePeriodSeconds: ptr.To(grace)}}
}

// TestShutdown checks that pods end in groups, each within its time, before the machine
// does, and that a shutdown which is given up is followed by others.
func TestShutdown(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := &login{limit: time.Hour, delay: 5 * time.Second, events: make(chan bool)}
		p := &pods{begun: time.Now(), over: map[types.UID]time.Time{}, takes: map[types.UID]time.Duration{"slow": time.Hour, "quick": time.Second, "critical": time.Second},
			list: []*v1.Pod{pod("critical", systemCritical+1000, 60), pod("slow", 0, 60), pod("quick", -5, 3)}}
		events := record.NewFakeRecorder(10)
		changes := 0
		m := New(Config{Settings: Settings{Period: 30 * time.Second, Critical: 10 * time.Second}, Connect: func() (Login, error) { return l, nil }, Pods: p, Dir: dir,
			Changed: func() { changes++ }, Began: func(time.Time) {}, Finished: func(time.Time) {}, Node: &v1.ObjectReference{}, Recorder: events, Clock: clock.RealClock{}})
		ctx, cancel := context.WithCancel(t.Context())
		go m.Run(ctx)
		synctest.Wait()
		if l.delay != 30*time.Second || l.inhibited != 1 || m.Now() {
			t.Errorf("delay %v, inhibited %d, shutting down %v", l.delay, l.inhibited, m.Now())
		}
		l.events <- true
		time.Sleep(time.Second)
		synctest.Wait()
		if l.inhibited != 1 || !m.Now() || changes != 1 {
			t.Errorf("inhibited %d, shutting down %v, told %d times", l.inhibited, m.Now(), changes)
		}
		time.Sleep(21 * time.Second)
		synctest.Wait()
		if want := []string{"slow at 0s with 20", "quick at 0s with 3", "critical at 20s with 10"}; !slices.Equal(p.log, want) {
			t.Errorf("%q, want %q", p.log, want)
		}
		if l.inhibited != 0 {
			t.Error("the shutdown is still delayed")
		}
		l.events <- false
		synctest.Wait()
		if l.inhibited != 1 || m.Now() {
			t.Errorf("inhibited %d, shutting down %v", l.inhibited, m.Now())
		}
		if e := <-events.Events; e != "Normal NodeShutdown Shutdown manager detected shutdown event" {
			t.Error(e)
		}
		cancel()
		close(l.events)
		synctest.Wait()
	})
	var began, finished time.Time
	m := New(Config{Dir: dir, Began: func(t time.Time) { began = t }, Finished: func(t time.Time) { finished = t }})
	if m.recall(); finished.Sub(began) < 20*time.Second {
		t.Errorf("the shutdown is kept as from %v to %v", began, finished)
	}
}

// TestRefused checks that nothing is delayed where logind does not allow for it.
func TestRefused(t *testing.T) {
	m := New(Config{Settings: Settings{Period: time.Minute}, Clock: clock.RealClock{}})
	synctest.Test(t, func(t *testing.T) {
		err := m.delay(t.Context(), &login{limit: 5 * time.Second, delay: 5 * time.Second})
		if err == nil || !strings.Contains(err.Error(), "current value of InhibitDelayMaxSec (5s) is less than requested ShutdownGracePeriod") {
			t.Errorf("%v", err)
		}
	})
	if err := m.delay(t.Context(), &login{fail: errors.New("no bus")}); err == nil {
		t.Error("no bus")
	}
}

func TestGroups(t *testing.T) {
	m := New(Config{Settings: Settings{Groups: []Group{{100, 20}, {10, 10}}}})
	got := m.groups([]*v1.Pod{pod("low", -1, 1), pod("ten", 10, 1), pod("99", 99, 1), pod("100", 100, 1), {ObjectMeta: metav1.ObjectMeta{UID: "none"}}})
	text := ""
	for _, g := range got {
		for _, p := range g.pods {
			text += fmt.Sprint(p.UID, ":", g.seconds, " ")
		}
	}
	if text != "low:10 ten:10 99:10 none:10 100:20 " {
		t.Error(text)
	}
	if m.Total() != 30*time.Second {
		t.Error(m.Total())
	}
}

func TestSettings(t *testing.T) {
	var g groups
	if err := g.Set("0=60,2000000000=10"); err != nil || g.String() != "0=60,2000000000=10" {
		t.Errorf("%v, %v", g, err)
	}
	if err := g.Set("x"); err == nil {
		t.Error("x")
	}
	for want, s := range map[string]Settings{
		"shutdownGracePeriod 500ms must be":        {Period: 500 * time.Millisecond},
		"shutdownGracePeriodCriticalPods 1ms must": {Period: time.Second, Critical: time.Millisecond},
		"must be <= shutdownGracePeriod":           {Period: time.Second, Critical: 2 * time.Second},
		"Cannot specify both":                      {Period: time.Second, Groups: []Group{{}}},
		"has the priority 1 twice":                 {Groups: []Group{{1, 1}, {1, 2}}},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
	if err := (&Settings{Period: 30 * time.Second, Critical: 10 * time.Second}).Validate(); err != nil {
		t.Error(err)
	}
}
