package component

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	recordutil "k8s.io/client-go/tools/record/util"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
)

// The limits of client-go's recorder, which events are correlated by.
const (
	knownEvents    = 4096 // how many events, groups and sources are remembered
	spamBurst      = 25   // events about one object from one source at once,
	spamQPS        = 1. / 300
	similarEvents  = 10 // from so many of them events that differ by their message are one,
	similarSeconds = 600
	tries          = 12 // of writing one event
	retryDelay     = 10 * time.Second
)

// mostQueued is how many events wait to be written: some 100 MB. Further ones are lost.
const mostQueued = 100_000

// Record writes the events of a broadcaster to a sink until ctx is done, and then those
// that wait, until one is not written. It does what the broadcaster's StartRecordingToSink
// does, except that it loses no event of a burst, where that loses those that come while
// 1,000 wait, and that it encodes nothing for events which are too many and left out.
func Record(ctx context.Context, b record.EventBroadcaster, sink record.EventSink) {
	q := &eventQueue{more: make(chan struct{}, 1)}
	w := eventWriter{sink, newCorrelator(clock.RealClock{})}
	b.StartEventWatcher(q.add)
	go func() {
		for {
			for _, e := range q.take() {
				if !w.record(ctx, e) && ctx.Err() != nil {
					return
				}
			}
			select {
			case <-q.more:
			case <-ctx.Done():
				if q.empty() {
					return
				}
			}
		}
	}()
}

// eventQueue holds events until they are taken.
type eventQueue struct {
	mu     sync.Mutex
	events []*v1.Event
	more   chan struct{}
}

func (q *eventQueue) add(e *v1.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) >= mostQueued {
		return
	}
	q.events = append(q.events, e)
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *eventQueue) take() []*v1.Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := q.events
	q.events = nil
	return events
}

func (q *eventQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.events) == 0
}

// eventWriter writes events to a sink.
type eventWriter struct {
	sink       record.EventSink
	correlator *correlator
}

// record writes an event, or what it adds to an earlier one. It tries again where the API
// server does not answer. When ctx is done it tries once; then it reports whether that
// succeeded, and else whether there was an answer.
func (w eventWriter) record(ctx context.Context, e *v1.Event) bool {
	e, patch, skip := w.correlator.correlate(e)
	if skip {
		return true
	}
	logger := klog.FromContext(ctx)
	for try := 1; ; try++ {
		err := w.write(e, patch)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		switch err.(type) { //nolint:errorlint // as client-go's recorder
		case *rest.RequestConstructionError:
			logger.Error(err, "Unable to construct event (will not retry!)", "event", e)
			return true
		case *apierrors.StatusError:
			if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
				logger.V(5).Info("Server rejected event (will not retry!)", "event", e, "err", err)
			} else {
				logger.Error(err, "Server rejected event (will not retry!)", "event", e)
			}
			return true
		}
		if try >= tries {
			logger.Error(err, "Unable to write event (retry limit exceeded!)", "event", e)
			return false
		}
		logger.Error(err, "Unable to write event (may retry after sleeping)", "event", e)
		delay := retryDelay
		if try == 1 { // so that clients do not retry all at once
			delay = time.Duration(rand.Float64() * float64(delay))
		}
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false
		}
	}
}

// write creates an event, or patches an earlier one with patch.
func (w eventWriter) write(e *v1.Event, patch []byte) error {
	if patch != nil {
		if _, err := w.sink.Patch(e, patch); !recordutil.IsKeyNotFoundError(err) {
			return err
		}
	}
	_, err := w.sink.Create(e)
	return err
}

// correlator does what client-go's does: it counts equal events, makes one of many that
// differ by their message, and leaves out those of a source that has much to say about one
// object. It makes patches only of events that are not left out.
type correlator struct {
	aggregator *record.EventAggregator
	filter     *record.EventSourceObjectSpamFilter
	seen       *lru.Cache // observation by the aggregator's key
}

// observation is what is known of an event that has been seen before.
type observation struct {
	count int32
	first metav1.Time
	name  string
}

func newCorrelator(c clock.PassiveClock) *correlator {
	return &correlator{
		aggregator: record.NewEventAggregator(knownEvents, record.EventAggregatorByReasonFunc, record.EventAggregatorByReasonMessageFunc, similarEvents, similarSeconds, c),
		filter:     record.NewEventSourceObjectSpamFilter(knownEvents, spamBurst, spamQPS, c, spamKey),
		seen:       lru.New(knownEvents),
	}
}

// spamKey tells the sources and objects of events apart.
func spamKey(e *v1.Event) string {
	o := &e.InvolvedObject
	return strings.Join([]string{e.Source.Component, e.Source.Host, o.Kind, o.Namespace, o.Name, string(o.UID), o.APIVersion, e.Type}, "")
}

// correlate returns the event to be written, with the patch of an earlier one if it
// changes that; or that the event is to be left out.
func (c *correlator) correlate(e *v1.Event) (out *v1.Event, patch []byte, skip bool) {
	e, key := c.aggregator.EventAggregate(e)
	one := *e
	v, known := c.seen.Get(key)
	if known {
		last := v.(observation)
		one.Name, one.FirstTimestamp, one.Count = last.name, last.first, last.count+1
	}
	c.seen.Add(key, observation{one.Count, one.FirstTimestamp, one.Name})
	if c.filter.Filter(&one) {
		return nil, nil, true
	}
	if known {
		patch, _ = json.Marshal(struct { // of these types it cannot fail
			Count         int32       `json:"count"`
			LastTimestamp metav1.Time `json:"lastTimestamp"`
			Message       string      `json:"message,omitempty"`
		}{one.Count, one.LastTimestamp, one.Message})
	}
	return &one, patch, false
}
