package trace

import (
	"testing"
	"time"
)

// TestExpect has an object cause a write before its own creation is recorded.
func TestExpect(t *testing.T) {
	r := NewRecorder(DefaultLimit)
	set := NewContext()
	done := r.Expect("set", set)
	r.Add(Step{Time: time.Now(), Verb: "create", Resource: "pods", UID: "pod", ResourceVersion: "3", CauseUID: "set", CauseVersion: "2"})
	r.Add(Step{Time: time.Now(), Verb: "create", Resource: "replicasets.apps", UID: "set", ResourceVersion: "2", Context: set})
	done()
	for _, s := range r.Way("pod") {
		if s.UID == "pod" && (s.TraceID != set.TraceID || s.Parent != set.SpanID) {
			t.Errorf("the pod's step is in the trace %s below %s, want %s below %s", s.TraceID, s.Parent, set.TraceID, set.SpanID)
		}
	}
	if at, ok := r.Of("pod"); !ok || at.TraceID != set.TraceID {
		t.Errorf("the pod's place is %v, want one in %s", at, set.TraceID)
	}
	if len(r.coming) != 0 {
		t.Errorf("still expected: %v", r.coming)
	}
}
