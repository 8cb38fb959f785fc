package heap

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// leastGrowth is how much a heap may grow, in bytes, before it is collected,
	// however small it is: else a burst of requests to a small cluster pays
	// for a collection every few milliseconds.
	leastGrowth = 32 << 20
	// growth is, in percent, that of a big heap: a control plane is idle most of
	// the time, and memory matters more than the collector's share of the processor.
	growth = 50
	// mostGrowth is that in a burst, where the machine has room for a share of it.
	mostGrowth = 400
	share      = 4
	// Collections in a shorter time than hurried make a burst, in a longer one than
	// calm its end.
	hurried = 5 * time.Second
	calm    = 15 * time.Second
)

// pace is how far the heap may grow, in percent of what is live, until it is collected.
type pace struct {
	percent int // beyond growth only in a burst
	last    time.Time
}

// collected returns how far the heap may grow now that it has been collected. live is
// what is left of it in bytes, and spare returns what the machine has, which is asked
// for only in a burst.
func (p *pace) collected(now time.Time, live uint64, spare func() uint64) int {
	since := now.Sub(p.last)
	switch {
	case p.last.IsZero():
		p.percent = growth
	case since < hurried:
		p.percent = min(4*p.percent, mostGrowth)
	case since > calm:
		p.percent = max(p.percent/2, growth)
	}
	p.last = now
	if live == 0 {
		return p.percent
	}
	if p.percent > growth {
		p.percent = max(min(p.percent, percent(spare()/share, live)), growth)
	}
	return max(p.percent, min(percent(leastGrowth, live), 1000))
}

// calmed reports whether a burst has ended without a collection since: it allocates so
// little that none is due, and keeps what the heap has grown by. The burst is over then.
func (p *pace) calmed(now time.Time) bool {
	if p.percent <= growth || now.Sub(p.last) < calm {
		return false
	}
	p.percent = growth
	return true
}

func percent(part, whole uint64) int { return int(min(part*100/whole, 10*mostGrowth)) }

// process is the pace of this process.
var process struct {
	sync.Mutex
	pace
	set int // what the collector was told last
}

// Pace keeps the collector to a pace: a heap that is seldom collected stays small, and
// one that is collected often may grow as long as the machine has room for it. The pace
// is set anew after each collection, by the finalizer of an object that nothing refers to.
func Pace() {
	type sentinel struct{ _ [16]byte }
	var collected func(*sentinel)
	collected = func(*sentinel) {
		follow()
		runtime.SetFinalizer(&sentinel{}, collected)
	}
	collected(nil)
}

// follow tells the collector the pace after a collection.
func follow() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	process.Lock()
	defer process.Unlock()
	if percent := process.collected(time.Now(), live[0].Value.Uint64(), available); percent != process.set {
		process.set = percent
		debug.SetGCPercent(percent)
	}
}

// settle gives back what the heap has grown by in a burst that is over.
func settle() {
	process.Lock()
	over := process.calmed(time.Now())
	process.Unlock()
	if over {
		debug.FreeOSMemory() // it collects, and the collection sets the pace
	}
}
