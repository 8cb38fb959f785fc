package tracing

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/remote"
)

// Shared keeps the records of several servers on one store alike: a write is recorded by
// each when it sees the change, before its components do, from the note that comes with it;
// what is no write is posted. Each server sends to collectors what it has done itself.
type Shared struct {
	trace  *trace.Recorder
	posted chan []byte
}

// NewShared returns one for the record of this server.
func NewShared(r *trace.Recorder) *Shared {
	return &Shared{trace: r, posted: make(chan []byte, backlog)}
}

const (
	// backlog is how many messages of other servers wait; more are lost.
	backlog = 64
	// postPause is the time between two messages, and postSteps how many steps each has at
	// most.
	postPause = 200 * time.Millisecond
	postSteps = 200
)

// Note is Note, with the step of the write. Writes that are not recorded have none.
func (s *Shared) Note(ctx context.Context, w apiserver.Write) string {
	if w.Timing == nil {
		return ""
	}
	n := note(ctx, w)
	n.Step = &trace.Step{Verb: w.Verb, Resource: w.Resource.GroupVersionResource.GroupResource().String()}
	from(ctx, w, n.Step)
	return n.String()
}

// Observed records a write of another server.
func (s *Shared) Observed(ev *store.Event) {
	n := trace.ParseNote(ev.Note)
	if n.Step == nil || !n.Step.Context.IsValid() {
		return
	}
	acc, err := meta.Accessor(ev.Entry.Object())
	if err != nil {
		return
	}
	w := apiserver.Write{Verb: n.Step.Verb, Subresource: n.Subresource, Object: ev.Entry.Object()}
	if ev.Prev != nil {
		w.Old = ev.Prev.Object()
	}
	step := *n.Step
	step.Foreign, step.Time, step.Subresource = true, time.Now(), n.Subresource
	step.Namespace, step.Name, step.UID, step.ResourceVersion, step.What = acc.GetNamespace(), acc.GetName(), acc.GetUID(), acc.GetResourceVersion(), what(w)
	about(&step, w, acc)
	s.trace.Add(step)
}

// Posted takes a message of another server.
func (s *Shared) Posted(message []byte) {
	select {
	case s.posted <- message:
	default:
	}
}

// Run posts what this server records, by messages of at most that many bytes, until ctx
// ends.
func (s *Shared) Run(ctx context.Context, post func(ctx context.Context, message []byte) error, most int) {
	f := s.trace.Follow()
	defer f.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.Wake():
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(postPause):
		}
		for more := true; more && ctx.Err() == nil; {
			var steps []*trace.Step
			steps, _ = f.Read(postSteps)
			more = len(steps) == postSteps
			message, err := message(steps, most)
			if err == nil && message != nil {
				err = post(ctx, message)
			}
			if err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).V(2).Info("Telling the other servers of steps of the trace failed", "err", err)
			}
		}
	}
}

// message returns what is posted of steps: those of which no change in the store tells the
// other servers.
func message(steps []*trace.Step, most int) ([]byte, error) {
	batch := remote.Batch{Now: time.Now()}
	size := 0
	for _, step := range steps {
		if step.Foreign || step.Phase == "" && !step.Refused {
			continue
		}
		if size += step.Size(); size > most {
			break
		}
		batch.Steps = append(batch.Steps, *step)
	}
	if len(batch.Steps) == 0 {
		return nil, nil
	}
	data, err := json.Marshal(batch)
	if err == nil && len(data) > most {
		err = fmt.Errorf("%d steps take %d bytes, and a message %d", len(batch.Steps), len(data), most)
	}
	return data, err
}

// Take records what other servers have posted, until ctx ends.
func (s *Shared) Take(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case message := <-s.posted:
			var batch remote.Batch
			if err := json.Unmarshal(message, &batch); err != nil {
				continue // it is of another version
			}
			now := time.Now()
			shift := batch.Shift(now)
			for i := range batch.Steps {
				step := batch.Steps[i]
				step.Foreign, step.Critical, step.Time = true, false, step.Time.Add(shift)
				s.trace.Add(step)
			}
		}
	}
}
