package linearizability

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/watch"
)

// change is a state that a writer has made of an object.
type change struct {
	// revision of the write; 0 where its answer was lost and no read has returned
	// it.
	revision int64
	live     bool // false if it was deleted
	facts
}

// facts holds the fields that selectors and watchers see. Each write sets
// another value or another message.
type facts struct {
	value, message     string
	group, node, phase string
}

// seen is an event that a watcher was sent.
type seen struct {
	kind     watch.EventType
	key      string
	revision int64
	facts
}

// segment holds the events that a watcher saw from one revision to another
// without a gap.
type segment struct {
	// from is the revision after which it starts. initial reports whether it began
	// with the state at from, which start holds.
	from    int64
	initial bool
	start   map[string]seen
	events  []seen
	to      int64 // the revision up to which everything has been sent
}

// view is the selection and form in which a watcher sees objects.
type view struct {
	name    string
	selects func(key string, f facts) bool
	// metadataOnly reports whether it is sent no status.
	metadataOnly bool
}

// sight is an event that a view must show.
type sight struct {
	seen
	// after and before bound the revision where it is unknown.
	after, before int64
}

// sights returns the history of an object as the view shows it.
func (v *view) sights(key string, history []change) []sight {
	var out []sight
	was, last := false, facts{}
	for i, c := range history {
		is := c.live && v.selects(key, c.facts)
		s := sight{seen: seen{key: key, revision: c.revision, facts: c.facts}}
		if i > 0 {
			s.after = history[i-1].revision
		}
		if i+1 < len(history) {
			s.before = history[i+1].revision
		}
		switch {
		case is && was:
			s.kind = watch.Modified
		case is:
			s.kind = watch.Added
		case was:
			s.kind, s.facts = watch.Deleted, last
		}
		if is || was {
			out = append(out, s)
		}
		was, last = is, c.facts
	}
	return out
}

func (v *view) same(a, b seen) bool {
	return a.kind == b.kind && a.key == b.key && a.revision == b.revision && a.value == b.value && (v.metadataOnly || a.message == b.message)
}

func (s seen) String() string {
	return fmt.Sprintf("%s %s at %d (value %s, message %q)", s.kind, s.key, s.revision, s.value, s.message)
}

// learn takes the revisions of unanswered deletions from watchers' events: those
// that no other change has.
func learn(histories map[string][]change, segments []*segment) {
	known := map[int64]bool{}
	for _, h := range histories {
		for _, c := range h {
			known[c.revision] = true
		}
	}
	for _, s := range segments {
		for _, e := range s.events {
			if e.kind != watch.Deleted || known[e.revision] {
				continue
			}
			h := histories[e.key]
			for i := range h {
				if h[i].revision == 0 && i > 0 && h[i-1].revision < e.revision && (i+1 == len(h) || e.revision < h[i+1].revision) {
					h[i].revision = e.revision
					known[e.revision] = true
				}
			}
		}
	}
}

// judge compares what a watcher saw with what was written, and returns what is wrong.
func (v *view) judge(histories map[string][]change, s *segment) (wrong []string) {
	fail := func(format string, args ...any) { wrong = append(wrong, v.name+": "+fmt.Sprintf(format, args...)) }
	last := s.from
	byKey := map[string][]seen{}
	for _, e := range s.events {
		if e.revision <= last {
			fail("%s came after revision %d", e, last)
		}
		last = max(last, e.revision)
		byKey[e.key] = append(byKey[e.key], e)
		if histories[e.key] == nil {
			fail("%s, which nobody wrote", e)
		}
	}
	if s.to < last {
		fail("a bookmark at %d after revision %d", s.to, last)
	}
	for key, history := range histories {
		var want []seen
		var state *seen
		for _, st := range v.sights(key, history) {
			switch {
			case st.revision == 0 && st.before != 0 && st.before <= s.from:
				state = &st.seen
			case st.revision == 0:
				// No watcher saw it, which is right only if none had to.
				if s.from <= st.after && st.before != 0 && st.before <= s.to {
					fail("it missed that %s was deleted between %d and %d", key, st.after, st.before)
				}
			case st.revision <= s.from:
				state = &st.seen
			case st.revision <= s.to:
				want = append(want, st.seen)
			}
		}
		if s.initial {
			got, has := s.start[key]
			exists := state != nil && state.kind != watch.Deleted
			switch {
			case exists != has && !uncertain(history, s.from):
				fail("at %d, where it starts, %s exists: %v, want %v", s.from, key, has, exists)
			case exists && has && (got.revision != state.revision || got.value != state.value || !v.metadataOnly && got.message != state.message):
				fail("at %d, where it starts, it saw %s, want %s", s.from, got, *state)
			}
		}
		if got := byKey[key]; !slices.EqualFunc(got, want, v.same) {
			at := 0
			for at < len(got) && at < len(want) && v.same(got[at], want[at]) {
				at++
			}
			is, should := "nothing more", "nothing more"
			if at < len(got) {
				is = got[at].String()
			}
			if at < len(want) {
				should = want[at].String()
			}
			fail("from %d to %d, event %d of %s: it saw %s, want %s", s.from, s.to, at, key, is, should)
		}
	}
	return wrong
}

// uncertain reports whether the object may have been deleted at the revision, since
// the revision of a deletion is unknown.
func uncertain(history []change, revision int64) bool {
	for i, c := range history {
		if c.revision == 0 && i > 0 && history[i-1].revision <= revision && (i+1 == len(history) || revision < history[i+1].revision) {
			return true
		}
	}
	return false
}
