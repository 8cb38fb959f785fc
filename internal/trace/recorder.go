package trace

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Step is one recorded write.
type Step struct {
	Time        time.Time `json:"time"`
	Actor       string    `json:"actor"`
	Verb        string    `json:"verb"`
	Resource    string    `json:"resource"` // plural and group: deployments.apps
	Subresource string    `json:"subresource,omitempty"`
	Namespace   string    `json:"namespace,omitempty"`
	Name        string    `json:"name"`
	UID         types.UID `json:"uid"`
	// ResourceVersion is the one of the state written.
	ResourceVersion string `json:"resourceVersion"`
	// What describes in a few words what changed ("Ready", "bound to node-1").
	What string `json:"what,omitempty"`
	// CauseUID and CauseVersion name the object's version that the write was
	// made for; empty for a request from outside.
	CauseUID     types.UID `json:"causeUID,omitempty"`
	CauseVersion string    `json:"causeVersion,omitempty"`
}

// Recorder keeps the last steps, in a ring. It is safe for concurrent use.
type Recorder struct {
	mu    sync.Mutex
	limit int
	steps []Step
	next  int // of the oldest, once the ring is full
}

// NewRecorder makes a recorder of the last n steps. It grows to that as it
// needs to.
func NewRecorder(n int) *Recorder { return &Recorder{limit: n} }

// Add records a step; the oldest goes where there is no room.
func (r *Recorder) Add(s Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.steps) < r.limit {
		r.steps = append(r.steps, s)
		return
	}
	r.steps[r.next] = s
	r.next = (r.next + 1) % len(r.steps)
}

// Way returns the steps on and because of the object with that UID: the writes
// of it, the writes of others that it caused, and so on, in order of time.
func (r *Recorder) Way(uid types.UID) []Step {
	r.mu.Lock()
	defer r.mu.Unlock()
	on := map[types.UID]bool{uid: true}
	ordered := make([]*Step, 0, len(r.steps))
	for i := range r.steps {
		ordered = append(ordered, &r.steps[(r.next+i)%len(r.steps)])
	}
	// A cause is written before what it causes, so that one pass finds most;
	// repeat until no more objects join.
	for grown := true; grown; {
		grown = false
		for _, s := range ordered {
			if on[s.CauseUID] && s.CauseUID != "" && !on[s.UID] {
				on[s.UID] = true
				grown = true
			}
		}
	}
	var out []Step
	for _, s := range ordered {
		if on[s.UID] && (s.UID == uid || on[s.CauseUID] || s.CauseUID == "") {
			out = append(out, *s)
		}
	}
	return out
}
