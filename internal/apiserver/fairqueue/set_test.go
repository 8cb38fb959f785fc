package fairqueue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	fq "k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing"
	"k8s.io/apiserver/pkg/util/flowcontrol/metrics"
	"k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/utils/clock"
)

func newSet(t *testing.T, cfg fq.QueuingConfig, limit int) *set {
	t.Helper()
	metrics.Register()
	cfg.Name = t.Name()
	f := &Factory{Clock: clock.RealClock{}, Patience: 15 * time.Second}
	gauge := func(phase string) metrics.RatioedGauge {
		return metrics.PriorityLevelConcurrencyGaugeVec.NewForLabelValuesSafe(0, 1, []string{phase, t.Name()})
	}
	c, err := f.BeginConstruction(cfg, metrics.RatioedGaugePair{RequestsWaiting: gauge("waiting"), RequestsExecuting: gauge("executing")},
		metrics.PriorityLevelExecutionSeatsGaugeVec.NewForLabelValuesSafe(0, 1, []string{t.Name()}), fq.NewNamedIntegrator(f.Clock, t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	return c.Complete(fq.DispatchingConfig{ConcurrencyLimit: limit, ConcurrencyDenominator: max(1, limit)}).(*set)
}

// ask starts a request of a flow, which is served for d. It returns a channel
// that receives whether it was served.
func ask(ctx context.Context, s *set, flow uint64, seats int, d time.Duration) chan bool {
	served := make(chan bool, 1)
	r, _ := s.StartRequest(ctx, &request.WorkEstimate{InitialSeats: uint64(seats)}, flow, fmt.Sprint(flow), "schema", nil, nil, nil)
	if r == nil {
		served <- false
		return served
	}
	go func() {
		ok := false
		r.Finish(func() { ok = true; time.Sleep(d) })
		served <- ok
	}()
	return served
}

var queues = fq.QueuingConfig{DesiredNumQueues: 8, QueueLengthLimit: 3, HandSize: 2}

// TestLimit checks that no more seats are in use than there are; what waits is served
// later, and a full queue takes no more.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet(t, queues, 2)
		var all []chan bool
		for range 20 { // of one flow: 2 are served, 2 queues of 3 wait
			all = append(all, ask(t.Context(), s, 7, 1, time.Second))
		}
		synctest.Wait()
		if d := s.Dump(true); d.Executing != 2 || d.SeatsInUse != 2 || d.Waiting != 6 || d.Rejected != 12 {
			t.Errorf("%+v", d)
		}
		begin := time.Now()
		served := 0
		for _, c := range all {
			if <-c {
				served++
			}
		}
		if served != 8 || time.Since(begin) != 4*time.Second {
			t.Errorf("%d were served in %v", served, time.Since(begin))
		}
		if !s.IsIdle() || len(s.active) != 0 || s.used != 0 || s.wanted != 0 {
			t.Errorf("at the end: %+v", s.Dump(false))
		}
	})
}

// TestFair checks that a flow that asks rarely does not wait behind one that asks
// all the time.
func TestFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet(t, fq.QueuingConfig{DesiredNumQueues: 64, QueueLengthLimit: 1000, HandSize: 1}, 1)
		var mu sync.Mutex
		var order []string
		start := func(name string, flow uint64) {
			r, _ := s.StartRequest(t.Context(), &request.WorkEstimate{InitialSeats: 1}, flow, name, "schema", nil, nil, nil)
			go r.Finish(func() {
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
			})
			synctest.Wait()
		}
		for range 50 {
			start("greedy", 1)
		}
		time.Sleep(35 * time.Millisecond)
		start("modest", 2)
		time.Sleep(time.Second)
		synctest.Wait()
		if i := slices.Index(order, "modest"); i < 1 || i > 5 || len(order) != 51 {
			t.Errorf("modest was the %dth of %d: %q", i, len(order), order)
		}
	})
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet(t, queues, 1)
		long := ask(t.Context(), s, 1, 1, time.Hour)
		begin := time.Now()
		if <-ask(t.Context(), s, 2, 1, 0) || time.Since(begin) != 15*time.Second {
			t.Errorf("without a deadline: %v", time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		begin = time.Now()
		if <-ask(ctx, s, 2, 1, 0) || time.Since(begin) != 2*time.Second {
			t.Errorf("with one: %v", time.Since(begin))
		}
		gone, leave := context.WithCancel(t.Context())
		c := ask(gone, s, 2, 1, 0)
		leave()
		if <-c {
			t.Error("a client that had gone was served")
		}
		if d := s.Dump(false); d.Waiting != 0 || d.SeatsWaiting != 0 || d.Rejected != 3 || d.Timedout != 2 || d.Cancelled != 3 {
			t.Errorf("%+v", d)
		}
		<-long
	})
}

// TestWide checks that a request that wants more seats than there are is served
// alone; one that keeps seats after its end frees them later.
func TestWide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet(t, queues, 3)
		begin := time.Now()
		small, wide, next := ask(t.Context(), s, 1, 1, time.Second), ask(t.Context(), s, 2, 10, time.Second), ask(t.Context(), s, 3, 1, time.Second)
		<-small
		if <-wide; time.Since(begin) != 2*time.Second {
			t.Errorf("the wide one ended after %v", time.Since(begin))
		}
		<-next
		r, _ := s.StartRequest(t.Context(), &request.WorkEstimate{InitialSeats: 1, FinalSeats: 6, AdditionalLatency: time.Second}, 1, "", "schema", nil, nil, nil)
		r.Finish(func() {})
		if d := s.Dump(false); d.SeatsInUse != 3 || d.Executing != 0 {
			t.Errorf("it lingers on %+v", d)
		}
		begin = time.Now()
		if <-ask(t.Context(), s, 1, 1, 0); time.Since(begin) != 2*time.Second { // 6 seats for a second are 3 for two
			t.Errorf("the next one was served after %v", time.Since(begin))
		}
	})
}

func TestWithoutQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet(t, fq.QueuingConfig{}, 1)
		one := ask(t.Context(), s, 0, 1, time.Second)
		if <-ask(t.Context(), s, 0, 1, 0) {
			t.Error("a second was served")
		}
		if !<-one {
			t.Error("the first was not")
		}
		exempt := newSet(t, fq.QueuingConfig{DesiredNumQueues: -1}, 0)
		for range 10 {
			ask(t.Context(), exempt, 0, 1, time.Second)
		}
		synctest.Wait()
		if d := exempt.Dump(false); d.Executing != 10 {
			t.Errorf("exempt: %+v", d)
		}
		time.Sleep(2 * time.Second)
	})
}

// TestReconfigured checks that nothing is lost when the configuration changes
// under load.
func TestReconfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet(t, fq.QueuingConfig{DesiredNumQueues: 16, QueueLengthLimit: 1000, HandSize: 3}, 4)
		rnd := rand.New(rand.NewPCG(1, 2))
		var all []chan bool
		for range 400 {
			all = append(all, ask(t.Context(), s, rnd.Uint64N(30), 1+rnd.IntN(3), time.Duration(1+rnd.IntN(20))*time.Millisecond))
			if rnd.IntN(20) == 0 {
				c, err := s.BeginConfigChange(fq.QueuingConfig{Name: t.Name(), DesiredNumQueues: 4 + rnd.IntN(20), QueueLengthLimit: 1000, HandSize: 3})
				if err != nil {
					t.Fatal(err)
				}
				c.Complete(fq.DispatchingConfig{ConcurrencyLimit: 2 + rnd.IntN(6), ConcurrencyDenominator: 4})
			}
			time.Sleep(time.Millisecond)
		}
		for i, c := range all {
			if !<-c {
				t.Errorf("the %dth was not served", i)
			}
		}
		if d := s.Dump(false); d.SeatsInUse != 0 || d.Waiting != 0 || d.Dispatched != 400 || len(s.queues) != s.cfg.DesiredNumQueues {
			t.Errorf("at the end %+v, %d queues", d, len(s.queues))
		}
	})
}
