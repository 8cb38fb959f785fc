package trace

import (
	"cmp"
	"slices"
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

	seq uint64
}

// overhead is about how many bytes a step takes beside its strings: itself, and its
// places in the indexes.
const overhead = 320

func (s *Step) size() int {
	return overhead + len(s.Actor) + len(s.Subresource) + len(s.Namespace) + len(s.Name) + len(s.UID) + len(s.ResourceVersion) + len(s.What) + len(s.CauseUID) + len(s.CauseVersion)
}

// Recorder keeps the last steps, in a bounded memory. Recording and asking take as long
// as what they are about is large, and not as what is kept. It is safe for concurrent
// use.
type Recorder struct {
	mu    sync.RWMutex
	limit int // in bytes
	bytes int
	first uint64 // the oldest step's number
	steps []*Step
	// on has the steps on an object, and because those on others that it caused, in
	// order.
	on, because map[types.UID][]*Step
}

// DefaultLimit is the memory of a recorder in bytes.
const DefaultLimit = 64 << 20

// NewRecorder makes a recorder that takes about as many bytes as limit.
func NewRecorder(limit int) *Recorder {
	return &Recorder{limit: limit, on: map[types.UID][]*Step{}, because: map[types.UID][]*Step{}}
}

// Add records a step; the oldest ones go where there is no room.
func (r *Recorder) Add(s Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.seq = r.first + uint64(len(r.steps))
	r.steps = append(r.steps, &s)
	r.bytes += s.size()
	r.on[s.UID] = append(r.on[s.UID], &s)
	if s.CauseUID != "" && s.CauseUID != s.UID {
		r.because[s.CauseUID] = append(r.because[s.CauseUID], &s)
	}
	for r.bytes > r.limit && len(r.steps) > 1 {
		r.drop()
	}
}

// drop forgets the oldest step. r.mu is held.
func (r *Recorder) drop() {
	s := r.steps[0]
	r.steps[0] = nil
	r.steps = r.steps[1:]
	r.first++
	r.bytes -= s.size()
	forget(r.on, s.UID)
	if s.CauseUID != "" && s.CauseUID != s.UID {
		forget(r.because, s.CauseUID)
	}
}

// forget drops the first step of an object in an index, which is the oldest.
func forget(index map[types.UID][]*Step, uid types.UID) {
	steps := index[uid]
	if len(steps) <= 1 {
		delete(index, uid)
		return
	}
	steps[0] = nil
	index[uid] = steps[1:]
}

// Way returns the steps on and because of the object with that UID: the writes
// of it, the writes of others that it caused, and so on, in order of time.
func (r *Recorder) Way(uid types.UID) []Step {
	on := map[types.UID]bool{uid: true}
	var out []Step
	for todo := []types.UID{uid}; len(todo) > 0; todo = todo[1:] {
		r.mu.RLock()
		own, caused := slices.Clone(r.on[todo[0]]), slices.Clone(r.because[todo[0]])
		r.mu.RUnlock()
		for _, s := range own {
			if todo[0] == uid || s.CauseUID == "" || on[s.CauseUID] {
				out = append(out, *s)
			}
		}
		for _, s := range caused {
			if !on[s.UID] {
				on[s.UID] = true
				todo = append(todo, s.UID)
			}
		}
	}
	slices.SortFunc(out, func(a, b Step) int { return cmp.Compare(a.seq, b.seq) })
	return out
}

// Find returns the UID of the last object of that name; "" if none is known.
func (r *Recorder) Find(resource, namespace, name string) types.UID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range slices.Backward(r.steps) {
		if s.Name == name && s.Namespace == namespace && s.Resource == resource {
			return s.UID
		}
	}
	return ""
}
