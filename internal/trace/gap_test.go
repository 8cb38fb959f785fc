package trace

import (
	"fmt"
	"testing"
	"time"
)

// TestGaps notes gaps, some of them one, and more than are kept.
func TestGaps(t *testing.T) {
	r := NewRecorder(DefaultLimit)
	at := func(s int) time.Time { return time.Unix(1000+int64(s), 0) }
	r.AddGap(Gap{From: at(0), To: at(5), Who: "node-1", Why: "a", Steps: 1})
	r.AddGap(Gap{From: at(6), To: at(7), Who: "node-1", Why: "a", Steps: 2})
	r.AddGap(Gap{From: at(6), To: at(7), Who: "node-1", Why: "b", Steps: 4})
	r.AddGap(Gap{From: at(40), To: at(41), Who: "node-1", Why: "a", Steps: 8})
	r.AddGap(Gap{From: at(40), To: at(41), Who: "node-1", Why: "a"}) // none
	for _, c := range []struct {
		from, to int
		want     string
	}{
		{-10, -1, ""}, {0, 0, "0-7:3 "}, {6, 6, "0-7:3 6-7:4 "}, {8, 39, ""}, {7, 100, "0-7:3 6-7:4 40-41:8 "},
	} {
		got := ""
		for _, g := range r.Gaps(at(c.from), at(c.to)) {
			got += fmt.Sprintf("%d-%d:%d ", g.From.Unix()-1000, g.To.Unix()-1000, g.Steps)
		}
		if got != c.want {
			t.Errorf("from %d to %d: %q, want %q", c.from, c.to, got, c.want)
		}
	}
	for i := range 2 * mostGaps {
		r.AddGap(Gap{From: at(100 + i), To: at(100 + i), Who: fmt.Sprint("node-", i), Why: "a", Steps: 1})
	}
	if all := r.Gaps(at(0), at(10_000)); len(all) != mostGaps || all[len(all)-1].Who != fmt.Sprint("node-", 2*mostGaps-1) {
		t.Errorf("%d gaps are kept, the last of %s", len(all), all[len(all)-1].Who)
	}
}
