package memory

import (
	"sort"
	"time"

	"keelson.dev/keelson/internal/store"
)

// history is the recent changes in order of revision. A revision may have
// several changes, or none.
type history struct {
	// compacted is the oldest revision whose state can be read: later changes
	// are kept.
	compacted int64
	events    []*store.Event // a ring, len is a power of two
	times     []int64        // when each was committed, in Unix nanoseconds
	head, n   int
	bytes     int // what only the history holds: the objects that were replaced, encoded
}

// held returns how much of ev only the history holds.
func held(ev *store.Event) int {
	n := 0
	if ev.Prev != nil {
		n = ev.Prev.Size
	}
	if ev.Type == store.Delete {
		n += ev.Entry.Size
	}
	return n
}

func (h *history) at(i int) *store.Event { return h.events[(h.head+i)&(len(h.events)-1)] }

// encodedFor is the number of changes for which a replaced entry keeps its wire
// forms: only watchers that are further behind, and lists of the past, have to
// make them anew.
const encodedFor = 1024

func (h *history) add(ev *store.Event, now int64) {
	if h.n == len(h.events) {
		size := max(64, 2*len(h.events))
		events, times := make([]*store.Event, size), make([]int64, size)
		for i := range h.n {
			j := (h.head + i) & (len(h.events) - 1)
			events[i], times[i] = h.events[j], h.times[j]
		}
		h.events, h.times, h.head = events, times, 0
	}
	j := (h.head + h.n) & (len(h.events) - 1)
	h.events[j], h.times[j] = ev, now
	h.n++
	h.bytes += held(ev)
	if h.n > encodedFor {
		old := h.at(h.n - 1 - encodedFor)
		if old.Prev != nil {
			old.Prev.Forget()
		}
		if old.Type == store.Delete {
			old.Entry.Forget()
		}
	}
}

func (h *history) drop() {
	h.compacted = h.at(0).Revision
	h.bytes -= held(h.at(0))
	h.events[h.head] = nil
	h.head = (h.head + 1) & (len(h.events) - 1)
	h.n--
}

// trim keeps at most limit changes, that hold at most that many bytes, none older
// than age.
func (h *history) trim(limit, bytes int, age time.Duration, now int64) {
	for h.n > limit || h.n > 0 && (h.bytes > bytes || h.times[h.head] < now-int64(age)) {
		h.drop()
	}
}

// forget drops the changes up to and with revision.
func (h *history) forget(revision int64) {
	for h.n > 0 && h.at(0).Revision <= revision {
		h.drop()
	}
	h.compacted = max(h.compacted, revision)
}

// since calls f for the changes after revision, in order, until it returns false.
func (h *history) since(revision int64, f func(*store.Event) bool) {
	h.each(revision, func(ev *store.Event, _ int64) bool { return f(ev) })
}

// each is since, with the time of each change.
func (h *history) each(revision int64, f func(ev *store.Event, at int64) bool) {
	first := sort.Search(h.n, func(i int) bool { return h.at(i).Revision > revision })
	for i := first; i < h.n; i++ {
		if !f(h.at(i), h.times[(h.head+i)&(len(h.times)-1)]) {
			return
		}
	}
}
