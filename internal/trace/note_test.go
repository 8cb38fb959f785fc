package trace

import (
	"reflect"
	"testing"
	"time"
)

// TestTold reads what a server tells the others of its writes.
func TestTold(t *testing.T) {
	ms := func(n int) Millis { return Millis(time.Duration(n) * time.Millisecond) }
	for name, s := range map[string]Step{
		"request":   {Verb: "update", Resource: "deployments.apps", Subresource: "scale", Context: NewContext(), Client: "kubectl/v1", Took: ms(7), Admission: ms(2), Validation: ms(1)},
		"component": {Verb: "create", Resource: "pods", Context: NewContext(), Parent: NewSpanID(), CauseUID: "0f6b", CauseVersion: "9", Woke: ms(3), Parts: []Part{{Name: "webhook w", Took: ms(1), Detail: "denied it"}}},
		"unsampled": {Verb: "delete", Resource: "pods", Context: Context{TraceID: TraceID{1}, SpanID: SpanID{2}, Unsampled: true}},
	} {
		n := Note{Client: s.Client, Subresource: s.Subresource, Told: Tell(&s)}
		if s.CauseUID != "" {
			n.Client, n.Cause = "keelson", Cause{s.CauseUID, s.CauseVersion}.String()
		}
		n = ParseNote(n.String())
		if got, ok := n.Step(); !ok || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: read %+v, %v, want %+v", name, got, ok, s)
		}
	}
	for _, text := range []string{"", "{}", `{"user":"a"}`, `{"told":{}}`, `{"told":{"place":"AAAA"}}`, Note{Told: Tell(&Step{})}.String()} {
		n := ParseNote(text)
		if s, ok := n.Step(); ok {
			t.Errorf("%s: read %+v", text, s)
		}
	}
}
