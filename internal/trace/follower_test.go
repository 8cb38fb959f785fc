package trace

import (
	"net/http"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// TestFollow reads steps as they are recorded, by one who keeps up and one who does not.
func TestFollow(t *testing.T) {
	one := Step{UID: "object-1", Name: "1"}
	r := NewRecorder(4*one.Size() + one.Size()/2)
	r.Add(one)
	quick, slow := r.Follow(), r.Follow()
	select {
	case <-quick.Wake():
		t.Fatal("woken by a step from before")
	default:
	}
	next := 0
	for i := range 10 {
		s := one
		s.Name = string(rune('a' + i))
		r.Add(s)
		select {
		case <-quick.Wake():
		default:
			t.Fatalf("not woken by step %d", i)
		}
		steps, lost := quick.Read(100)
		if len(steps) != 1 || steps[0].Name != s.Name || lost != 0 {
			t.Fatalf("read %d steps, %d lost, want %s", len(steps), lost, s.Name)
		}
		next++
	}
	steps, lost := slow.Read(3)
	if len(steps) != 3 || lost != 6 || steps[0].Name != "g" {
		t.Errorf("the slow one reads %d steps from %s, %d lost, want 3 from g and 6", len(steps), steps[0].Name, lost)
	}
	select {
	case <-slow.Wake():
	default:
		t.Error("not woken though there is more")
	}
	if lost := slow.Skip(); lost != 1 {
		t.Errorf("skipped %d steps, want 1", lost)
	}
	quick.Close()
	slow.Close()
	if len(r.followers) != 0 {
		t.Errorf("%d followers are left", len(r.followers))
	}
}

// TestPlaces gives steps their places in distributed traces.
func TestPlaces(t *testing.T) {
	r := NewRecorder(DefaultLimit)
	ctx, ok := Parent(http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}})
	if !ok {
		t.Fatal("the traceparent is not read")
	}
	r.Add(Step{Verb: "create", UID: "deployment", ResourceVersion: "5", Context: ctx})
	r.Add(Step{Verb: "create", UID: "set", ResourceVersion: "6", CauseUID: "deployment", CauseVersion: "5"})
	r.Add(Step{Verb: "patch", UID: "deployment", ResourceVersion: "10"})
	r.Add(Step{Verb: "create", UID: "pod", ResourceVersion: "11", CauseUID: "set", CauseVersion: "9"})
	r.Add(Step{Phase: PhasePull, UID: "pod", ResourceVersion: "11"})
	r.Add(Step{Verb: "create", UID: "other", ResourceVersion: "12", CauseUID: "deployment", CauseVersion: "10"})
	of := func(uid string) *Step { return r.on[types.UID(uid)][0] }
	for _, uid := range []string{"set", "pod"} {
		if of(uid).TraceID != ctx.TraceID {
			t.Errorf("%s is in the trace %s, want %s", uid, of(uid).TraceID, ctx.TraceID)
		}
	}
	if of("set").Parent != ctx.SpanID || of("pod").Parent != of("set").SpanID || r.on["pod"][1].Parent != of("pod").SpanID {
		t.Error("the spans are not below their causes'")
	}
	if o := of("other"); o.TraceID == ctx.TraceID || o.TraceID != r.on["deployment"][1].TraceID {
		t.Error("what a later version caused is not in that one's trace")
	}
	h := http.Header{}
	Inject(ctx, h)
	if got, ok := Parent(h); !ok || got != ctx {
		t.Errorf("sent %v, read %v", ctx, got)
	}
	for _, bad := range []string{"", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "x"} {
		if _, ok := Parent(http.Header{"Traceparent": {bad}}); ok {
			t.Errorf("%q is read as a place in a trace", bad)
		}
	}
}
