package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	fw "keelson.dev/keelson/internal/scheduler/framework"
	"keelson.dev/keelson/internal/trace"
)

// verdict is what an attempt found out about the nodes, for the trace.
type verdict struct {
	nodes, fit int
	rejected   map[string]int // by plug-in
	// scores says what the best score was, of what it consisted, and the next ones.
	scores string
}

// newVerdict returns the verdict of a search of which fit nodes came out.
func newVerdict(nodes, fit int, d *fw.Diagnosis) verdict {
	v := verdict{nodes: nodes, fit: fit, rejected: map[string]int{}}
	for _, st := range d.NodeToStatus {
		v.rejected[st.Plugin()]++
	}
	return v
}

// runnersUp is how many scores beside the best one are told.
const runnersUp = 3

// scored notes the totals of the nodes that fit, of which the one at best was chosen.
func (v *verdict) scored(totals []int64, best int, nodes []*fw.NodeInfo) {
	order := make([]int, 0, runnersUp+1)
	for i := range totals {
		if i == best {
			continue
		}
		at, _ := slices.BinarySearchFunc(order, i, func(a, b int) int { return cmp.Compare(totals[b], totals[a]) })
		if at < runnersUp {
			order = slices.Insert(order, at, i)
			order = order[:min(len(order), runnersUp)]
		}
	}
	all := []string{fmt.Sprintf("score %d", totals[best])}
	for _, i := range order {
		all = append(all, fmt.Sprintf("%s %d", nodes[i].Node.Name, totals[i]))
	}
	v.scores = strings.Join(all, ", ")
}

// verdict returns what is known of the nodes of a class; picked reports whether one was.
func (c *class) verdict(picked bool) verdict {
	v := verdict{nodes: len(c.entries), fit: c.fit}
	if len(c.rejected) > 0 {
		v.rejected = maps.Clone(c.rejected)
	}
	if !picked {
		return v
	}
	var b strings.Builder
	fmt.Fprintf(&b, "score %d:", c.total)
	for i := range c.p.scores {
		s := &c.p.scores[i]
		if n := c.shared(s, c.chosen); n != 0 && !c.state.SkipScore.Has(s.Name()) {
			fmt.Fprintf(&b, " %s %d,", s.Name(), n)
		}
	}
	fmt.Fprintf(&b, " the node's own %d", c.chosen.top)
	ties := len(c.chosen.levels[c.chosen.top])
	if ties > 1 {
		fmt.Fprintf(&b, ", as on %d more", ties-1)
	}
	v.scores = b.String()
	return v
}

// String says the verdict in a few words.
func (v *verdict) String() string {
	var b strings.Builder
	if v.nodes > 0 {
		fmt.Fprintf(&b, "%d of %d nodes fit", v.fit, v.nodes)
	}
	for _, plugin := range slices.Sorted(maps.Keys(v.rejected)) {
		fmt.Fprintf(&b, ", %s rejects %d", plugin, v.rejected[plugin])
	}
	if v.scores != "" {
		fmt.Fprintf(&b, "; %s", v.scores)
	}
	return b.String()
}

// tell records an attempt in the trace of its pod.
func (s *Scheduler) tell(a *attempt, node string, v verdict, err error) {
	if s.Trace == nil {
		return
	}
	took := s.Clock.Since(a.begin)
	queued := a.begin.Sub(a.since)
	detail := node + ": " + v.String()
	if err != nil {
		detail = "fits nowhere: " + err.Error()
	}
	if a.tries > 1 {
		detail = fmt.Sprintf("attempt %d, after %s: %s", a.tries, a.why, detail)
	}
	s.Trace.Phase("pods", a.pod, trace.PhaseSchedule, detail, time.Now().Add(-took-queued),
		trace.Part{Name: "waiting in the queue", Took: trace.Millis(queued)}, trace.Part{Name: "deciding", After: trace.Millis(queued), Took: trace.Millis(took)})
}
