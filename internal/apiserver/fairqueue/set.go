package fairqueue

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	fq "k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing"
	"k8s.io/apiserver/pkg/util/flowcontrol/metrics"
	"k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/apiserver/pkg/util/shufflesharding"
	"k8s.io/utils/clock"
)

// guess is how long a request is thought to take until it is known, upstream's.
const guess = 3 * time.Millisecond

// Factory makes queue sets.
type Factory struct {
	Clock clock.WithDelayedExecution
	// Patience is how long a request waits whose context has no deadline; one that
	// has waits a fourth of what is left, and never more than a minute.
	Patience time.Duration
}

// BeginConstruction implements fairqueuing.QueueSetFactory.
func (f *Factory) BeginConstruction(cfg fq.QueuingConfig, requests metrics.RatioedGaugePair, seats metrics.RatioedGauge, demand metrics.Gauge) (fq.QueueSetCompleter, error) {
	s := &set{factory: f, requests: requests, seats: seats, demand: demand, synced: f.Clock.Now()}
	return s.BeginConfigChange(cfg)
}

// set holds the queues of a priority level, and the requests that are served.
type set struct {
	factory  *Factory
	requests metrics.RatioedGaugePair // waiting, and executing without what lingers
	seats    metrics.RatioedGauge     // with that
	demand   metrics.Gauge

	mu     sync.Mutex
	cfg    fq.QueuingConfig
	limit  int // of seats
	dealer *shufflesharding.Dealer
	queues []*queue
	// active are the queues with something waiting or executing, in no order.
	active []*queue
	// progress is how many seat-seconds each busy queue has had its right to since
	// the set was last idle: "virtual time". It was right at synced.
	progress float64
	synced   time.Time
	// executing are the requests that are being served without queues; with them they
	// are only counted.
	executing                                 map[*turn]struct{}
	running, waiting, used, wanted            int // requests, and seats
	dealt                                     int
	last                                      int // index of the queue that was served last
	dispatched, rejected, timedOut, cancelled int
}

// queue has the requests of the flows that were dealt to it.
type queue struct {
	index    int
	waiting  []*turn // the oldest first
	work     float64 // of these
	wanted   int     // seats of these
	running  map[*turn]struct{}
	used     int     // seats
	next     float64 // progress at which its next request would start
	isActive bool
}

type completer struct {
	set    *set
	cfg    fq.QueuingConfig
	dealer *shufflesharding.Dealer
}

// BeginConfigChange implements fairqueuing.QueueSet.
func (s *set) BeginConfigChange(cfg fq.QueuingConfig) (fq.QueueSetCompleter, error) {
	c := &completer{set: s, cfg: cfg}
	if cfg.DesiredNumQueues > 0 {
		var err error
		if c.dealer, err = shufflesharding.NewDealer(cfg.DesiredNumQueues, cfg.HandSize); err != nil {
			return nil, fmt.Errorf("dealing %d of %d queues to a flow: %w", cfg.HandSize, cfg.DesiredNumQueues, err)
		}
	}
	return c, nil
}

// Complete implements fairqueuing.QueueSetCompleter.
func (c *completer) Complete(d fq.DispatchingConfig) fq.QueueSet {
	s := c.set
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sync()
	if c.cfg.DesiredNumQueues > 0 {
		for i := len(s.queues); i < c.cfg.DesiredNumQueues; i++ {
			s.queues = append(s.queues, &queue{index: i, running: map[*turn]struct{}{}})
		}
	} else {
		// What waits still waits in its queue.
		c.cfg.QueueLengthLimit, c.cfg.HandSize = s.cfg.QueueLengthLimit, s.cfg.HandSize
	}
	s.cfg, s.dealer, s.limit = c.cfg, c.dealer, d.ConcurrencyLimit
	s.trim()
	room := max(1, s.cfg.QueueLengthLimit) * max(1, s.cfg.DesiredNumQueues)
	s.requests.RequestsWaiting.SetDenominator(float64(room))
	s.requests.RequestsExecuting.SetDenominator(float64(d.ConcurrencyDenominator))
	s.seats.SetDenominator(float64(d.ConcurrencyDenominator))
	s.dispatch()
	return s
}

// trim takes away queues at the end that are too many and have nothing to do.
func (s *set) trim() {
	for n := len(s.queues); n > max(0, s.cfg.DesiredNumQueues) && !s.queues[n-1].isActive; n-- {
		s.queues = s.queues[:n-1]
	}
}

// IsIdle implements fairqueuing.QueueSet.
func (s *set) IsIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.idle()
}

func (s *set) idle() bool { return s.waiting == 0 && s.running == 0 }

// sync brings progress up to date: while some queues are busy, the seats in use,
// or wanted up to the limit, are shared equally among them.
func (s *set) sync() {
	now := s.factory.Clock.Now()
	passed := now.Sub(s.synced).Seconds()
	s.synced = now
	busy, asked := 0, 0
	for _, q := range s.active {
		asked += q.used + q.wanted
		if len(q.waiting) > 0 || len(q.running) > 0 {
			busy++
		}
	}
	if busy > 0 {
		s.progress += float64(min(asked, s.limit)) / float64(busy) * passed
	} else if len(s.active) == 0 {
		s.progress = 0 // it is only ever compared with that of busy queues
	}
}

// StartRequest implements fairqueuing.QueueSet.
func (s *set) StartRequest(ctx context.Context, estimate *request.WorkEstimate, hash uint64, distinguisher, schema string, _, _ any, note fq.QueueNoteFn) (fq.Request, bool) {
	t := &turn{set: s, ctx: ctx, schema: schema, distinguisher: distinguisher, estimate: *estimate, note: note}
	t.work = float64(estimate.InitialSeats)*guess.Seconds() + t.lingering()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sync()
	t.arrived, t.arrival = s.synced, s.progress
	if s.cfg.DesiredNumQueues < 1 {
		if !s.seatsFor(t.seats()) {
			return s.refuse(t, "concurrency-limit")
		}
		s.execute(t)
		return t, false
	}
	q := s.deal(hash)
	if s.used >= s.limit && len(q.waiting) >= s.cfg.QueueLengthLimit {
		return s.refuse(t, "queue-full")
	}
	t.queue = q
	s.activate(q)
	if len(q.waiting) == 0 && len(q.running) == 0 {
		q.next = s.progress
	}
	// With a free seat and no request waiting its turn has come: it would leave a
	// queue as soon as it entered.
	if s.waiting == 0 && s.used < s.limit && s.seatsFor(t.seats()) {
		metrics.ObserveQueueLength(ctx, s.cfg.Name, schema, 1)
		q.next = max(q.next, t.arrival)
		s.start(t)
		return t, false
	}
	t.called = make(chan struct{})
	s.enqueue(t)
	metrics.ObserveQueueLength(ctx, s.cfg.Name, schema, len(q.waiting))
	s.dispatch()
	return t, false
}

func (s *set) refuse(t *turn, why string) (fq.Request, bool) {
	s.rejected++
	metrics.AddReject(t.ctx, s.cfg.Name, t.schema, why)
	return nil, s.idle()
}

// deal returns the least loaded queue of a flow's hand.
func (s *set) deal(hash uint64) *queue {
	var room [8]int
	hand := s.dealer.DealIntoHand(hash, room[:])
	first := s.dealt % len(hand)
	s.dealt++
	best := s.queues[hand[first]]
	for i := 1; i < len(hand) && best.work > 0; i++ {
		if q := s.queues[hand[(first+i)%len(hand)]]; q.work < best.work {
			best = q
		}
	}
	return best
}

func (s *set) activate(q *queue) {
	if !q.isActive {
		q.isActive = true
		s.active = append(s.active, q)
	}
}

// rest is called when a queue may have nothing more to do.
func (s *set) rest(q *queue) {
	if q == nil || len(q.waiting) > 0 || len(q.running) > 0 || q.used > 0 {
		return
	}
	q.isActive, q.next = false, 0
	i := slices.Index(s.active, q)
	s.active[i] = s.active[len(s.active)-1]
	s.active = s.active[:len(s.active)-1]
	s.trim()
}

// seatsFor reports whether a request that wants n may be served now.
func (s *set) seatsFor(n int) bool {
	switch {
	case s.cfg.DesiredNumQueues < 0: // exempt
		return true
	case n > s.limit: // it will never get all of them: it is served alone
		return s.running == 0
	}
	return s.used+n <= s.limit
}

func (s *set) enqueue(t *turn) {
	q := t.queue
	q.waiting = append(q.waiting, t)
	s.count(t, 1)
	t.noteQueued(true)
}

// count adds a waiting request to what is counted, or takes it away.
func (s *set) count(t *turn, n int) {
	t.queue.work += float64(n) * t.work
	if len(t.queue.waiting) == 0 {
		t.queue.work = 0 // what rounding has left
	}
	t.queue.wanted += n * t.seats()
	s.waiting += n
	s.wanted += n * t.seats()
	metrics.AddRequestsInQueues(t.ctx, s.cfg.Name, t.schema, n)
	metrics.AddSeatsInQueues(t.ctx, s.cfg.Name, t.schema, n*t.seats())
	s.requests.RequestsWaiting.Add(float64(n))
	s.demand.Set(float64(s.used + s.wanted))
}

// dispatch serves waiting requests, as far as there are seats.
func (s *set) dispatch() {
	for s.waiting > 0 && s.used < s.limit {
		q, lowest, highest := s.choose()
		t := q.waiting[0]
		if !s.seatsFor(t.seats()) {
			metrics.AddDispatchWithNoAccommodation(s.cfg.Name, t.schema)
			return
		}
		s.last = q.index
		metrics.SetCurrentR(s.cfg.Name, s.progress)
		metrics.SetDispatchMetrics(s.cfg.Name, s.progress, q.next, lowest, highest, lowest-float64(q.used)*guess.Seconds(), highest-float64(q.used)*guess.Seconds())
		s.leave(t, 0)
		s.start(t)
		s.keepUp(q)
		close(t.called)
	}
}

// choose returns the queue whose oldest request would finish first; of equal ones the
// first after the one that was served last. lowest and highest are the starts of all.
func (s *set) choose() (best *queue, lowest, highest float64) {
	after := func(q *queue) int { return (q.index - s.last - 1 + len(s.queues)) % len(s.queues) }
	var finish float64
	for _, q := range s.active {
		if len(q.waiting) == 0 {
			continue
		}
		f := q.next + q.waiting[0].work
		if best == nil {
			lowest, highest = q.next, q.next
		}
		lowest, highest = min(lowest, q.next), max(highest, q.next)
		if best == nil || f < finish || f == finish && after(q) < after(best) {
			best, finish = q, f
		}
	}
	return best, lowest, highest
}

// leave takes the i-th of its queue out of it.
func (s *set) leave(t *turn, i int) {
	t.queue.waiting = slices.Delete(t.queue.waiting, i, i+1)
	s.count(t, -1)
	t.noteQueued(false)
}

// keepUp has a queue not save up for later what it could not use: its next request
// does not start before it came.
func (s *set) keepUp(q *queue) {
	if len(q.waiting) > 0 {
		q.next = max(q.next, q.waiting[0].arrival)
	}
}

// start serves a request of a queue.
func (s *set) start(t *turn) {
	// Seats that it keeps at its end are no more than there are: it keeps fewer, longer.
	if final := uint64(s.limit); t.estimate.FinalSeats > final && final > 0 {
		t.estimate.AdditionalLatency = time.Duration(t.lingering() / float64(final) * float64(time.Second))
		t.estimate.FinalSeats = final
	}
	t.queue.next += t.work
	t.queue.running[t] = struct{}{}
	t.queue.used += t.seats()
	s.serve(t)
}

// execute serves a request of a set without queues.
func (s *set) execute(t *turn) {
	if s.executing == nil {
		s.executing = map[*turn]struct{}{}
	}
	s.executing[t] = struct{}{}
	s.serve(t)
}

func (s *set) serve(t *turn) {
	t.isServed, t.started = true, s.synced
	s.running++
	s.used += t.seats()
	metrics.AddRequestsExecuting(t.ctx, s.cfg.Name, t.schema, 1)
	metrics.AddSeatConcurrencyInUse(s.cfg.Name, t.schema, t.seats())
	s.requests.RequestsExecuting.Add(1)
	s.seats.Add(float64(t.seats()))
	s.demand.Set(float64(s.used + s.wanted))
}

// finish ends a request, whose seats are free at once or after it has lingered.
func (s *set) finish(t *turn) (idle bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sync()
	s.running--
	s.dispatched++
	metrics.AddRequestsExecuting(t.ctx, s.cfg.Name, t.schema, -1)
	s.requests.RequestsExecuting.Add(-1)
	if q := t.queue; q != nil {
		delete(q.running, t)
		// It was charged by the guess.
		q.next -= float64(t.estimate.InitialSeats) * (guess - s.synced.Sub(t.started)).Seconds()
		s.keepUp(q)
	} else {
		delete(s.executing, t)
	}
	if t.estimate.AdditionalLatency <= 0 {
		s.release(t)
	} else {
		s.factory.Clock.AfterFunc(t.estimate.AdditionalLatency, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sync()
			s.release(t)
		})
	}
	return s.idle()
}

func (s *set) release(t *turn) {
	s.used -= t.seats()
	metrics.AddSeatConcurrencyInUse(s.cfg.Name, t.schema, -t.seats())
	s.seats.Add(-float64(t.seats()))
	s.demand.Set(float64(s.used + s.wanted))
	if t.queue != nil {
		t.queue.used -= t.seats()
		s.rest(t.queue)
	}
	if s.waiting > 0 {
		s.dispatch()
	}
}
