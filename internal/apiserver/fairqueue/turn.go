package fairqueue

import (
	"context"
	"slices"
	"time"

	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/util/flowcontrol/debug"
	fq "k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing"
	"k8s.io/apiserver/pkg/util/flowcontrol/metrics"
	"k8s.io/apiserver/pkg/util/flowcontrol/request"
)

// turn is a request's.
type turn struct {
	set                   *set
	ctx                   context.Context
	schema, distinguisher string
	estimate              request.WorkEstimate
	note                  fq.QueueNoteFn
	work                  float64 // in seat-seconds
	arrived               time.Time
	called                chan struct{} // closed when it is its turn; nil if that was at once

	// By the set's lock:
	queue    *queue // nil if there are none
	arrival  float64
	started  time.Time
	isServed bool
}

func (t *turn) seats() int { return t.estimate.MaxSeats() }

// lingering returns the seat-seconds after it has been answered.
func (t *turn) lingering() float64 {
	return float64(t.estimate.FinalSeats) * t.estimate.AdditionalLatency.Seconds()
}

func (t *turn) noteQueued(in bool) {
	if t.note != nil {
		t.note(in)
	}
}

// Finish implements fairqueuing.Request.
func (t *turn) Finish(execute func()) (idle bool) {
	if t.called != nil && !t.wait() {
		return t.set.IsIdle()
	}
	defer func() { idle = t.set.finish(t) }()
	execute()
	return idle
}

// wait reports whether its turn has come before its patience ended.
func (t *turn) wait() bool {
	select {
	case <-t.called:
		return true
	default:
	}
	timer := t.set.factory.Clock.NewTimer(t.patience())
	defer timer.Stop()
	select {
	case <-t.called:
		return true
	case <-timer.C():
		return !t.set.giveUp(t, true)
	case <-t.ctx.Done():
		return !t.set.giveUp(t, false)
	}
}

const longest = time.Minute

func (t *turn) patience() time.Duration {
	p := t.set.factory.Patience
	if deadline, ok := t.ctx.Deadline(); ok {
		p = deadline.Sub(t.arrived) / 4
	}
	return min(p, longest)
}

// giveUp takes the request out of its queue, unless its turn has come just now.
func (s *set) giveUp(t *turn, timedOut bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sync()
	if t.isServed {
		return false
	}
	s.leave(t, slices.Index(t.queue.waiting, t))
	s.rejected++
	s.cancelled++
	if timedOut {
		s.timedOut++
	}
	metrics.AddReject(t.ctx, s.cfg.Name, t.schema, "time-out")
	s.keepUp(t.queue)
	s.rest(t.queue)
	s.dispatch()
	return true
}

// Dump implements fairqueuing.QueueSet.
func (s *set) Dump(details bool) debug.QueueSetDump {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := debug.QueueSetDump{
		Queues: make([]debug.QueueDump, len(s.queues)), Waiting: s.waiting, Executing: s.running, SeatsInUse: s.used, SeatsWaiting: s.wanted,
		Dispatched: s.dispatched, Rejected: s.rejected, Timedout: s.timedOut, Cancelled: s.cancelled,
	}
	for t := range s.executing {
		d.QueuelessExecutingRequests = append(d.QueuelessExecutingRequests, t.dump(details))
	}
	for i, q := range s.queues {
		qd := debug.QueueDump{NextDispatchR: seatSeconds(q.next), ExecutingRequests: len(q.running), SeatsInUse: q.used, Requests: []debug.RequestDump{},
			QueueSum: debug.QueueSum{MaxSeatsSum: q.wanted, TotalWorkSum: seatSeconds(q.work)}}
		for _, t := range q.waiting {
			qd.QueueSum.InitialSeatsSum += int(t.estimate.InitialSeats)
			qd.Requests = append(qd.Requests, t.dump(details))
		}
		for t := range q.running {
			qd.RequestsExecuting = append(qd.RequestsExecuting, t.dump(details))
		}
		d.Queues[i] = qd
	}
	return d
}

// seatSeconds is upstream's form of these.
func seatSeconds(f float64) string {
	return request.SeatsTimesDuration(1, time.Duration(max(f, 0)*float64(time.Second))).String()
}

func (t *turn) dump(details bool) debug.RequestDump {
	d := debug.RequestDump{MatchedFlowSchema: t.schema, FlowDistinguisher: t.distinguisher, ArriveTime: t.arrived, StartTime: t.started, WorkEstimate: t.estimate}
	if !details {
		return d
	}
	if u, ok := genericrequest.UserFrom(t.ctx); ok {
		d.UserName = u.GetName()
	}
	if info, ok := genericrequest.RequestInfoFrom(t.ctx); ok {
		d.RequestInfo = *info
	}
	return d
}
