package trace

import (
	"sync"
	"time"
)

// The reasons for which steps do not come into a record, which a metric has as its label.
const (
	LostReporting = "reporting" // a component of another process had no room for them, or could not send them
	LostRate      = "rate"      // a component of another process reported more than are taken
	LostPosting   = "posting"   // they did not fit in what this server tells the others
	LostPosted    = "posted"    // other servers told of more than this one had room for
)

// Reasons are all of them.
var Reasons = []string{LostReporting, LostRate, LostPosting, LostPosted}

// Gap is a time in which steps were made that are not in the record.
type Gap struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Node is whose components made them; empty are the scheduler and other servers.
	Node string `json:"node,omitempty"`
	// Who says the same in words, and Why for what reason they are missing.
	Who string `json:"who"`
	Why string `json:"why"`
	// Steps is how many they are.
	Steps uint64 `json:"steps"`
}

// Cover makes the gap reach to a time; that of a gap without a time begins and ends there.
func (g *Gap) Cover(t time.Time) {
	if g.From.IsZero() || t.Before(g.From) {
		g.From = t
	}
	if t.After(g.To) {
		g.To = t
	}
}

const (
	// apart is how far apart gaps are that are kept as two.
	apart = 10 * time.Second
	// mostGaps bounds how many are kept; the oldest go.
	mostGaps = 256
)

// losses counts what did not come into a record. It is safe for concurrent use.
type losses struct {
	mu   sync.Mutex
	lost map[string]uint64
	gaps []Gap
}

// CountLost counts steps that did not come into a record, this one or that of others.
func (r *Recorder) CountLost(reason string, steps uint64) {
	if steps == 0 {
		return
	}
	l := &r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == nil {
		l.lost = map[string]uint64{}
	}
	l.lost[reason] += steps
}

// Lost returns how many steps were lost for a reason.
func (r *Recorder) Lost(reason string) uint64 {
	l := &r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost[reason]
}

// AddGap notes that steps are missing from this record.
func (r *Recorder) AddGap(g Gap) {
	if g.Steps == 0 {
		return
	}
	l := &r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.gaps {
		o := &l.gaps[i]
		if o.Who == g.Who && o.Why == g.Why && g.From.Sub(o.To) < apart && o.From.Sub(g.To) < apart {
			o.Steps += g.Steps
			o.Cover(g.From)
			o.Cover(g.To)
			return
		}
	}
	if len(l.gaps) == mostGaps {
		l.gaps = append(l.gaps[:0], l.gaps[1:]...)
	}
	l.gaps = append(l.gaps, g)
}

// Gaps returns those that reach into a time.
func (r *Recorder) Gaps(from, to time.Time) (out []Gap) {
	l := &r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.gaps {
		if !g.To.Before(from) && !g.From.After(to) {
			out = append(out, g)
		}
	}
	return out
}
