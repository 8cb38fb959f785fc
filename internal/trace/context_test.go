package trace

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestClockJumps has the machine's clock jump between a write and what that causes.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder(DefaultLimit)
		r.Add(Step{Time: time.Now(), Verb: "create", UID: "set", ResourceVersion: "2"})
		set := r.steps[0].TraceID
		for jump, same := range map[time.Duration]bool{-24 * time.Hour: true, 24 * time.Hour: true} {
			r.Add(Step{Time: time.Now().Round(0).Add(jump), Verb: "create", UID: "pod", ResourceVersion: "3", CauseUID: "set", CauseVersion: "2"})
			if got := r.steps[len(r.steps)-1].TraceID; (got == set) != same {
				t.Errorf("after a jump of %v: the trace %s, and the set's is %s", jump, got, set)
			}
		}
		time.Sleep(inherited + time.Second)
		r.Add(Step{Time: r.steps[0].Time, Verb: "create", UID: "pod", ResourceVersion: "4", CauseUID: "set", CauseVersion: "2"})
		if got := r.steps[len(r.steps)-1].TraceID; got == set {
			t.Error("what an object causes much later is of its trace")
		}
	})
}

// TestParent reads what clients send as the place that they are at.
func TestParent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for value, ok := range map[string]bool{
		good: true, "": false, "x": false, good + "-x": false, strings.Repeat("0", 1<<16): false, "ff" + good[2:]: false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false, strings.ToUpper(good): false,
	} {
		h := http.Header{"Traceparent": {value}, "Tracestate": {strings.Repeat("a=b,", 1<<14)}}
		c, got := Parent(h)
		if got != ok {
			t.Errorf("%.80q: %v", value, got)
		}
		if ok {
			out := http.Header{}
			Inject(c, out)
			if out.Get("Traceparent") != good || len(out) != 1 {
				t.Errorf("it is passed on as %.200v", out)
			}
		}
	}
}

// TestCommitted has an object cause writes before its own are recorded, which are recorded in
// another order than they were made in.
func TestCommitted(t *testing.T) {
	r := NewRecorder(DefaultLimit)
	made, changed := NewContext(), NewContext()
	caused := func(name, version string, want Context) {
		t.Helper()
		r.Add(Step{Time: time.Now(), Verb: "create", Resource: "pods", UID: "pod", Name: name, ResourceVersion: "100", CauseUID: "set", CauseVersion: version})
		if s := r.steps[len(r.steps)-1]; s.TraceID != want.TraceID || s.Parent != want.SpanID {
			t.Errorf("%s is in the trace %s below %s, want %s below %s", name, s.TraceID, s.Parent, want.TraceID, want.SpanID)
		}
	}
	r.Committed("set", "2", made)
	caused("of the creation", "2", made)
	r.Committed("set", "10", changed)
	caused("of the creation, late", "9", made)
	caused("of the change", "10", changed)
	caused("of any", "", changed)
	if at, ok := r.Of("set"); !ok || at.TraceID != changed.TraceID {
		t.Errorf("the set's place is %v, want that of its change", at)
	}
	r.Add(Step{Time: time.Now(), Verb: "update", Resource: "replicasets.apps", UID: "set", ResourceVersion: "10", Context: changed})
	caused("of the creation, not recorded", "2", made)
	r.Add(Step{Time: time.Now(), Verb: "create", Resource: "replicasets.apps", UID: "set", ResourceVersion: "2", Context: made})
	caused("of the recorded creation", "9", made)
	caused("of the recorded change", "10", changed)
	r.Add(Step{Time: time.Now(), Verb: "update", Resource: "replicasets.apps", UID: "set", ResourceVersion: "10", Refused: true, Context: NewContext()})
	caused("of the change, in spite of a refused one", "11", changed)
	r.Committed("set", "12", NewContext())
	r.Committed("set", "13", made)
	r.Withdraw("set", made)
	for version, at := range map[string]Context{"12": r.committed.all[0].at} {
		caused("of what is left", version, at)
		r.Add(Step{UID: "set", ResourceVersion: version, Context: at})
	}
	if len(r.committed.all) != 0 {
		t.Errorf("still not recorded: %v", r.committed.all)
	}
}
