package trace

import (
	"encoding/json"
	"strings"
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
	// Step is what is known of the write before it is committed, for the other servers of
	// the store: what the object says itself is left out.
	Step *Step `json:"step,omitempty"`
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
