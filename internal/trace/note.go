package trace

import (
	"encoding/json"
	"strings"
	"time"
)

// Note is what the history of the store keeps of a write beside the objects: by whom
// it was made, and because of what.
type Note struct {
	User        string `json:"user,omitempty"`
	Client      string `json:"client,omitempty"` // the User-Agent, cut to maxClient bytes
	Subresource string `json:"subresource,omitempty"`
	// Cause is Cause.String of the object's version that the write was made for; empty
	// for a request from outside.
	Cause string `json:"cause,omitempty"`
	// Told is for the other servers of the store.
	Told *Told `json:"told,omitempty"`
}

// Told is what is known of a write before it is committed, beside what its note and the
// object say.
type Told struct {
	Verb     string `json:"verb"`
	Resource string `json:"resource"`
	// Place has the IDs of the trace, of the write's span, and of the one above.
	Place     []byte `json:"place"`
	Unsampled bool   `json:"unsampled,omitempty"`
	// Times are those of Step.Took, Woke, Admission and Validation, in microseconds.
	Times [4]int64 `json:"times"`
	Parts []Part   `json:"parts,omitempty"`
}

// Tell returns what other servers are told of the step of a write.
func Tell(s *Step) *Told {
	place := make([]byte, 0, len(s.TraceID)+len(s.SpanID)+len(s.Parent))
	place = append(append(append(place, s.TraceID[:]...), s.SpanID[:]...), s.Parent[:]...)
	t := &Told{Verb: s.Verb, Resource: s.Resource, Place: place, Unsampled: s.Unsampled, Parts: s.Parts}
	for i, m := range []Millis{s.Took, s.Woke, s.Admission, s.Validation} {
		t.Times[i] = time.Duration(m).Microseconds()
	}
	return t
}

// Step returns the step that Tell was given, without what the object says, and false if the
// note tells of none.
func (n *Note) Step() (s Step, ok bool) {
	t := n.Told
	if t == nil || len(t.Place) != len(s.TraceID)+len(s.SpanID)+len(s.Parent) {
		return s, false
	}
	s = Step{Verb: t.Verb, Resource: t.Resource, Subresource: n.Subresource, Parts: t.Parts}
	place := t.Place
	for _, id := range [][]byte{s.TraceID[:], s.SpanID[:], s.Parent[:]} {
		place = place[copy(id, place):]
	}
	s.Unsampled = t.Unsampled
	for i, m := range []*Millis{&s.Took, &s.Woke, &s.Admission, &s.Validation} {
		*m = Millis(time.Duration(t.Times[i]) * time.Microsecond)
	}
	if c, err := ParseCause(n.Cause); err == nil {
		s.CauseUID, s.CauseVersion = c.UID, c.ResourceVersion
	} else {
		s.Client = n.Client
	}
	return s, s.Context.IsValid()
}

// maxClient bounds Note.Client in bytes.
const maxClient = 64

// String returns the note as JSON.
func (n Note) String() string {
	n.Client = ShortClient(n.Client)
	b, err := json.Marshal(n)
	if err != nil {
		return "" // strings can be marshalled
	}
	return string(b)
}

// ShortClient cuts a User-Agent to maxClient bytes.
func ShortClient(agent string) string {
	return strings.ToValidUTF8(agent[:min(len(agent), maxClient)], "")
}

// ParseNote reads the form that String gives. A note in another form is empty.
func ParseNote(s string) Note {
	var n Note
	_ = json.Unmarshal([]byte(s), &n)
	return n
}
