package tracing

import (
	"context"
	"encoding/json"
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
	step := trace.Step{Verb: w.Verb, Resource: w.Resource.GroupVersionResource.GroupResource().String()}
	from(ctx, w, &step)
	n.Told = trace.Tell(&step)
	return n.String()
}

// Observed records a write of another server.
func (s *Shared) Observed(ev *store.Event) {
	n := trace.ParseNote(ev.Note)
	step, ok := n.Step()
	if !ok {
		return
	}
	acc, err := meta.Accessor(ev.Entry.Object())
	if err != nil {
		return
	}
	w := apiserver.Write{Verb: step.Verb, Subresource: n.Subresource, Object: ev.Entry.Object()}
	if ev.Prev != nil {
		w.Old = ev.Prev.Object()
	}
	step.Foreign, step.Time, step.Actor = true, time.Now(), actor(n.User)
	step.Namespace, step.Name, step.UID, step.ResourceVersion, step.What = acc.GetNamespace(), acc.GetName(), acc.GetUID(), acc.GetResourceVersion(), what(w)
	about(&step, w, acc)
	s.trace.Add(step)
}

// Posted takes a message of another server.
func (s *Shared) Posted(message []byte) {
	select {
	case s.posted <- message:
	default:
		var batch struct {
			Steps []json.RawMessage `json:"steps"`
			Lost  uint64            `json:"lost"`
		}
		if json.Unmarshal(message, &batch) == nil {
			now, n := time.Now(), uint64(len(batch.Steps))
			s.trace.CountLost(trace.LostPosted, n)
			s.trace.AddGap(trace.Gap{From: now, To: now, Who: otherServer, Why: "it told of more than this one had room for", Steps: n})
			s.missing(min(batch.Lost, mostLost), now, now)
		}
	}
}

// otherServer is who has made steps that are missing from a server's record.
const otherServer = "another server"

// missing notes that another server has told of fewer steps than it has recorded.
func (s *Shared) missing(steps uint64, from, to time.Time) {
	s.trace.AddGap(trace.Gap{From: from, To: to, Who: otherServer, Why: "they did not fit in what it told this one", Steps: steps})
}

// Run posts what this server records, by messages of at most that many bytes, until ctx
// ends.
func (s *Shared) Run(ctx context.Context, post func(ctx context.Context, message []byte) error, most int) {
	f := s.trace.Follow()
	defer f.Close()
	// untold is how many steps are lost of which the others have not been told.
	untold, since := uint64(0), time.Time{}
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
			steps, lost := f.Read(postSteps)
			more = len(steps) == postSteps
			b, err := batchOf(steps, most)
			if err != nil {
				b.left = len(steps)
			}
			if lost += uint64(b.left); lost > 0 && untold == 0 { //nolint:gosec // it is not negative
				since = time.Now()
			}
			s.trace.CountLost(trace.LostPosting, lost)
			untold += lost
			if len(b.Steps) > 0 {
				var data []byte
				b.Lost, b.LostSince = untold, since
				if data, err = json.Marshal(b); err == nil {
					err = post(ctx, data)
				}
				if err == nil {
					untold = 0
				} else if ctx.Err() == nil {
					n := uint64(len(b.Steps))
					s.trace.CountLost(trace.LostPosting, n)
					untold += n
				}
			}
			if err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).V(2).Info("Telling the other servers of steps of the trace failed", "err", err)
			}
		}
	}
}

// posting is a remote.Batch that is encoded a step at a time.
type posting struct {
	Now       time.Time         `json:"now"`
	Steps     []json.RawMessage `json:"steps"`
	Lost      uint64            `json:"lost,omitempty"`
	LostSince time.Time         `json:"lostSince,omitzero"`

	left int // how many there is no room for
}

// around is how many bytes a posting takes without its steps, at most.
const around = 256

// batchOf returns what is posted of steps, in at most that many bytes: those of which no
// change in the store tells the other servers.
func batchOf(steps []*trace.Step, most int) (posting, error) {
	out := posting{Now: time.Now()}
	size := around
	for _, step := range steps {
		if step.Foreign || step.Phase == "" && !step.Refused {
			continue
		}
		data, err := json.Marshal(step)
		if err != nil {
			return posting{}, err
		}
		if size+len(data)+1 > most {
			out.left++
			continue
		}
		size += len(data) + 1
		out.Steps = append(out.Steps, data)
	}
	return out, nil
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
			s.missing(min(batch.Lost, mostLost), recent(batch.LostSince.Add(shift), now), now)
			for i := range batch.Steps {
				step := batch.Steps[i]
				step.Foreign, step.Critical, step.Time = true, false, step.Time.Add(shift)
				s.trace.Add(step)
			}
		}
	}
}
