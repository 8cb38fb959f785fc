package trace

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Step is a recorded write, or a phase: something that a component did for an object
// without writing it. It is not changed once it is recorded.
type Step struct {
	// Time is when it was done: of a write, when it was committed.
	Time     time.Time `json:"time"`
	Actor    string    `json:"actor"`
	Verb     string    `json:"verb,omitempty"` // of a write; empty of a phase
	Resource string    `json:"resource"`       // plural and group: deployments.apps

	Subresource string    `json:"subresource,omitempty"`
	Namespace   string    `json:"namespace,omitempty"`
	Name        string    `json:"name"`
	UID         types.UID `json:"uid"`
	// ResourceVersion is the one of the state written; of a phase, the one that it was
	// done for.
	ResourceVersion string `json:"resourceVersion,omitempty"`
	// What describes in a few words what changed ("Ready", "bound to node-1").
	What string `json:"what,omitempty"`
	// CauseUID and CauseVersion name the object's version that the write was
	// made for; empty for a request from outside.
	CauseUID     types.UID `json:"causeUID,omitempty"`
	CauseVersion string    `json:"causeVersion,omitempty"`

	// Phase is what was done, where it was no write: one of the Phase constants.
	Phase string `json:"phase,omitempty"`
	// Detail says more of it: bytes that were pulled, which filters rejected how many nodes.
	Detail string `json:"detail,omitempty"`
	// Node is the machine on which a phase was.
	Node string `json:"node,omitempty"`
	// Client is the User-Agent of a request from outside, cut to maxClient bytes.
	Client string `json:"client,omitempty"`
	// Took is how long it took: of a write, since the request came.
	Took Millis `json:"ms,omitempty"`
	// Woke is how long before Time the component that wrote began to look at the cause;
	// 0 is unknown.
	Woke Millis `json:"wokeMs,omitempty"`
	// Admission, Validation and Store are the parts of a write's time that admission took,
	// and validation, and the store with its disk.
	Admission  Millis `json:"admissionMs,omitempty"`
	Validation Millis `json:"validationMs,omitempty"`
	Store      Millis `json:"storeMs,omitempty"`
	// Parts are what else it consisted of: calls of webhooks, waiting in a queue.
	Parts []Part `json:"parts,omitempty"`
	// About are other objects that it concerns: the pods that an EndpointSlice names anew.
	About []types.UID `json:"about,omitempty"`
	// Context is the place of the step in a distributed trace, and Parent the span that it is
	// below, none at the top.
	Context
	Parent SpanID `json:"parent,omitzero"`

	// Refused reports whether the write was not made: What has the reason.
	Refused bool `json:"refused,omitempty"`

	// Sent reports whether the component that reports it sends it to a collector itself.
	Sent bool `json:"sent,omitempty"`

	// Critical reports whether the step is on the critical path of what was asked for. It
	// is not recorded, but found when it is asked for.
	Critical bool `json:"critical,omitempty"`

	// Foreign reports whether another server has recorded it, and sends it to collectors.
	Foreign bool `json:"-"`

	seq  uint64
	at   time.Duration // when it was recorded, by a clock that does not jump
	size int           // as recorded
}

// Seq is the number of the step among all that were recorded.
func (s *Step) Seq() uint64 { return s.seq }

// wrote reports whether the step changed its object.
func (s *Step) wrote() bool { return s.Phase == "" && !s.Refused }

// Began returns when the step began.
func (s *Step) Began() time.Time { return s.Time.Add(-time.Duration(s.Took)) }

// Phases that are no writes.
const (
	PhaseSchedule = "schedule"  // an attempt of the scheduler, waiting in its queue included
	PhaseVolumes  = "volumes"   // volumes attached and mounted
	PhaseDevices  = "devices"   // the devices of claims prepared
	PhaseSandbox  = "sandbox"   // the sandbox made, with its network
	PhasePull     = "pull"      // an image pulled, or found
	PhaseCreate   = "create"    // a container created
	PhaseStart    = "start"     // a container started
	PhaseHook     = "postStart" // a container's postStart hook
	PhaseProbe    = "probe"     // until a container's probe first succeeded
	PhaseSimulate = "simulate"  // a stage of a simulated node
	PhaseRules    = "rules"     // an EndpointSlice's rules written to the kernel
	PhaseName     = "name"      // the name server answers with what it has of a Service
	PhasePolicies = "policies"  // the network policies for a pod written to the kernel
)

// Part is a part of a step.
type Part struct {
	Name string `json:"name"`
	// After is how long after the step's beginning it began, and Took how long it took.
	After  Millis `json:"afterMs,omitempty"`
	Took   Millis `json:"ms"`
	Detail string `json:"detail,omitempty"`
}

// Millis is a duration that is written as milliseconds in JSON.
type Millis time.Duration

// MarshalJSON implements json.Marshaler.
func (m Millis) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Duration(m).Microseconds())/1000, 'f', -1, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Millis) UnmarshalJSON(data []byte) error {
	f, err := strconv.ParseFloat(string(data), 64)
	if err != nil || math.Abs(f) > float64(math.MaxInt64/time.Millisecond) {
		return fmt.Errorf("a duration in milliseconds: %q is none", data)
	}
	*m = Millis(f * float64(time.Millisecond))
	return nil
}

// A step takes about so many bytes beside its strings: itself with its place in the index of
// its object, its place in that of its cause, and those of each object that it is about, with
// their UIDs. TestMemory compares them with what is used.
const (
	overhead      = 640
	overheadCause = 96
	overheadAbout = 224
)

// Size is about how many bytes of memory the step takes, which is more than in JSON.
func (s *Step) Size() int {
	n := overhead + len(s.Actor) + len(s.Subresource) + len(s.Namespace) + len(s.Name) + len(s.UID) + len(s.ResourceVersion) + len(s.What) + len(s.CauseUID) + len(s.CauseVersion) +
		len(s.Detail) + len(s.Node) + len(s.Client)
	if s.CauseUID != "" {
		n += overheadCause
	}
	for i := range s.Parts {
		n += 64 + len(s.Parts[i].Name) + len(s.Parts[i].Detail)
	}
	return n + overheadAbout*len(s.About)
}

// Recorder keeps the last steps, in a bounded memory. Recording and asking take as long
// as what they are about is large, and not as what is kept. It is safe for concurrent
// use.
type Recorder struct {
	start time.Time
	mu    sync.RWMutex
	limit int // in bytes
	bytes int
	first uint64 // the oldest step's number
	steps []*Step
	// on has the steps on an object, its writes in order of their versions, and because those
	// on others that it caused.
	on, because map[types.UID][]*Step
	// about has the steps on others that concern the object.
	about map[types.UID][]*Step
	// committed has the writes that are about to be recorded.
	committed commits
	// sampled decides which traces are sampled; nil is none.
	sampled func(TraceID) bool
	// followers are woken by each step.
	followers []*Follower
	// losses has a lock of its own.
	losses losses
}

// DefaultLimit is the memory of a recorder in bytes.
const DefaultLimit = 64 << 20

// NewRecorder makes a recorder that takes about as many bytes as limit.
func NewRecorder(limit int) *Recorder {
	return &Recorder{start: time.Now(), limit: limit, on: map[types.UID][]*Step{}, because: map[types.UID][]*Step{}, about: map[types.UID][]*Step{}}
}

// Add records a step; the oldest ones go where there is no room. Its place in a
// distributed trace is that of its cause, where that is known, unless it has one.
func (r *Recorder) Add(s Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.at = time.Since(r.start)
	if !s.Context.IsValid() {
		r.place(&s)
	}
	s.seq = r.first + uint64(len(r.steps))
	r.steps = append(r.steps, &s)
	s.size = s.Size()
	r.bytes += s.size
	r.on[s.UID] = inOrder(r.on[s.UID], &s)
	r.committed.remove(s.UID, s.SpanID)
	if s.CauseUID != "" && s.CauseUID != s.UID {
		r.because[s.CauseUID] = append(r.because[s.CauseUID], &s)
	}
	for _, uid := range s.About {
		r.about[uid] = append(r.about[uid], &s)
	}
	// Many go at once: what they are found by is no longer in the processor's caches, and so
	// their neighbours' is.
	if r.bytes > r.limit {
		for room := r.limit - r.limit/dropped; r.bytes > room && len(r.steps) > 1; {
			r.drop()
		}
	}
	for _, f := range r.followers {
		f.notify()
	}
}

// dropped is the part of the record that goes at once when it is full.
const dropped = 1024

// drop forgets the oldest step. r.mu is held.
func (r *Recorder) drop() {
	s := r.steps[0]
	r.steps[0] = nil
	r.steps = r.steps[1:]
	r.first++
	r.bytes -= s.size
	forget(r.on, s.UID, s)
	if s.CauseUID != "" && s.CauseUID != s.UID {
		forget(r.because, s.CauseUID, s)
	}
	for _, uid := range s.About {
		forget(r.about, uid, s)
	}
}

// inOrder adds a step to those of its object: a write behind those of earlier versions,
// though requests record theirs in any order.
func inOrder(steps []*Step, s *Step) []*Step {
	if steps == nil {
		return append(make([]*Step, 0, few), s)
	}
	at := len(steps)
	for i := len(steps) - 1; i >= 0 && s.wrote(); i-- {
		if o := steps[i]; o.wrote() && (o.ResourceVersion == s.ResourceVersion || Reaches(s.ResourceVersion, o.ResourceVersion)) {
			break
		} else if o.wrote() {
			at = i
		}
	}
	return slices.Insert(steps, at, s)
}

// few is how many steps most objects have at least.
const few = 4

// forget drops a step of an object in an index: the oldest, and so mostly the first.
func forget(index map[types.UID][]*Step, uid types.UID, s *Step) {
	steps := index[uid]
	at := slices.Index(steps, s)
	switch {
	case at < 0: // it names the object twice
	case len(steps) == 1:
		delete(index, uid)
	case at == 0:
		steps[0] = nil
		index[uid] = steps[1:]
	default:
		index[uid] = slices.Delete(steps, at, at+1)
	}
}

// Way returns the steps on and because of the object with that UID: the writes
// of it, the writes of others that it caused, what concerns these, and so on, in order of
// time.
func (r *Recorder) Way(uid types.UID) []Step {
	on := map[types.UID]bool{uid: true}
	took := map[uint64]bool{}
	var out []Step
	add := func(s *Step) {
		if !took[s.seq] {
			took[s.seq] = true
			out = append(out, *s)
		}
	}
	for todo := []types.UID{uid}; len(todo) > 0; todo = todo[1:] {
		r.mu.RLock()
		own, caused, about := slices.Clone(r.on[todo[0]]), slices.Clone(r.because[todo[0]]), slices.Clone(r.about[todo[0]])
		r.mu.RUnlock()
		for _, s := range own {
			if todo[0] == uid || s.Phase != "" || s.CauseUID == "" || on[s.CauseUID] {
				add(s)
			}
		}
		for _, s := range about {
			add(s)
			for _, done := range r.doneFor(s) {
				add(done)
			}
		}
		for _, s := range caused {
			if s.UID != "" && !on[s.UID] {
				on[s.UID] = true
				todo = append(todo, s.UID)
			}
		}
	}
	slices.SortFunc(out, func(a, b Step) int { return cmp.Compare(a.seq, b.seq) })
	return out
}

// doneFor returns, of each kind and from each node, the first phase that was done for
// the version that a step wrote or for a later one.
func (r *Recorder) doneFor(s *Step) []*Step {
	r.mu.RLock()
	own := slices.Clone(r.on[s.UID])
	r.mu.RUnlock()
	seen := map[[2]string]bool{}
	return slices.DeleteFunc(own, func(p *Step) bool {
		key := [2]string{p.Phase, p.Node}
		if p.Phase == "" || seen[key] || !Reaches(p.ResourceVersion, s.ResourceVersion) {
			return true
		}
		seen[key] = true
		return false
	})
}

// Reaches reports whether a resourceVersion is another or a later one.
func Reaches(version, other string) bool {
	return len(version) > len(other) || len(version) == len(other) && version >= other
}

// searched is how many steps Find looks at before it lets writes go on.
const searched = 1000

// Find returns the UID of the last object of that name; "" if none is known.
func (r *Recorder) Find(resource, namespace, name string) types.UID {
	for end := uint64(math.MaxUint64); ; {
		r.mu.RLock()
		to := min(end, r.first+uint64(len(r.steps)))
		from := max(r.first, to-min(to, searched))
		for i := to; i > from; i-- {
			if s := r.steps[i-1-r.first]; s.Name == name && s.Namespace == namespace && s.Resource == resource {
				r.mu.RUnlock()
				return s.UID
			}
		}
		over := from <= r.first
		r.mu.RUnlock()
		if over {
			return ""
		}
		end = from
	}
}
