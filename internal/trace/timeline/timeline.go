// Package timeline finds the critical path among the steps of a trace, names the time that
// was lost on it, and prints them as a tree. It may import package trace.
package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/trace"
)

// Timeline is what is known of the way of an object.
type Timeline struct {
	UID   types.UID    `json:"uid"`
	Steps []trace.Step `json:"steps"`
	// Total is how long the last thing that was asked for from outside took, to its goal: the
	// last pod that became ready, or the rules for it. The steps of its critical path are
	// Critical; None waits for anything else.
	Total trace.Millis `json:"totalMs,omitempty"`
	// Begin is when that was asked for.
	Begin time.Time `json:"begin,omitzero"`
	// Lost is the time on the critical path in which nothing worked on it, the longest first.
	Lost []Loss `json:"lost,omitempty"`
	// Waits is what holds up what is not done.
	Waits []Wait `json:"waits,omitempty"`
	// Missing are the times in which steps may be missing from it.
	Missing []trace.Gap `json:"missing,omitempty"`
}

// Loss is time that was lost.
type Loss struct {
	What string       `json:"what"`
	Ms   trace.Millis `json:"ms"`
	At   time.Time    `json:"at"`
}

// Wait is what an object waits for.
type Wait struct {
	// Object is the one that waits, as kubectl's users write it: pod/web-1.
	Object string `json:"object"`
	// For says what it waits for, and Who could change that.
	For string `json:"for"`
	Who string `json:"who,omitempty"`
}

const (
	// quiet ends what follows a request: what happens after a longer pause has other reasons.
	quiet = 5 * time.Minute
	// tolerance is how much later than a step another may have ended of which it is the
	// consequence: their times are not taken at one moment.
	tolerance = 2 * time.Millisecond
	// longest bounds the critical path in steps.
	longest = 1000
	// least is a pause that is no loss.
	least = time.Millisecond
	// mostLosses is how many are named.
	mostLosses = 8
)

// New orders the steps of an object's way, which it changes: it marks those of the critical
// path.
func New(uid types.UID, steps []trace.Step) *Timeline {
	// Steps of other machines are recorded later than they were made.
	slices.SortStableFunc(steps, func(a, b trace.Step) int { return a.Time.Compare(b.Time) })
	t := &Timeline{UID: uid, Steps: steps}
	p := newPath(steps)
	first, goal := p.bounds(uid)
	if goal == nil {
		return t
	}
	t.Begin, t.Total = first.Began(), trace.Millis(goal.Time.Sub(first.Began()))
	for s, n := goal, 0; s != nil && n < longest; n++ {
		s.Critical = true
		t.inside(s)
		before := p.before(s, first)
		if before == nil {
			break
		}
		if gap := begin(s, before).Sub(before.Time); gap >= least {
			t.Lost = append(t.Lost, Loss{What: named(before, s), Ms: trace.Millis(gap), At: before.Time})
		}
		s = before
	}
	slices.SortStableFunc(t.Lost, func(a, b Loss) int { return cmp.Compare(b.Ms, a.Ms) })
	t.Lost = t.Lost[:min(len(t.Lost), mostLosses)]
	return t
}

// inside names the time that was lost within a step.
func (t *Timeline) inside(s *trace.Step) {
	for i := range s.Parts {
		part := &s.Parts[i]
		if strings.HasPrefix(part.Name, "waiting") && time.Duration(part.Took) >= least {
			what := part.Name + " of the " + s.Actor
			if s.Phase == trace.PhasePull {
				what = part.Name + " on " + s.Node
			}
			t.Lost = append(t.Lost, Loss{What: short(s) + ": " + what, Ms: part.Took, At: s.Began().Add(time.Duration(part.After))})
		}
	}
}

// path finds what each step followed.
type path struct {
	steps  []trace.Step
	on     map[types.UID][]*trace.Step
	parent map[types.UID]types.UID
	below  map[types.UID][]*trace.Step // on the objects made because of one
	about  map[types.UID][]*trace.Step
}

func newPath(steps []trace.Step) *path {
	p := &path{steps: steps, on: map[types.UID][]*trace.Step{}, parent: map[types.UID]types.UID{}, below: map[types.UID][]*trace.Step{}, about: map[types.UID][]*trace.Step{}}
	for i := range steps {
		s := &steps[i]
		if _, ok := p.parent[s.UID]; !ok && s.Phase == "" && (!s.Refused || s.UID == "") {
			p.parent[s.UID] = s.CauseUID
		}
		p.on[s.UID] = append(p.on[s.UID], s)
		if up := p.parent[s.UID]; up != "" && up != s.UID {
			p.below[up] = append(p.below[up], s)
		}
		for _, uid := range s.About {
			p.about[uid] = append(p.about[uid], s)
		}
	}
	return p
}

// bounds returns the last write of the object that was asked for from outside, and the
// goal of what followed.
func (p *path) bounds(uid types.UID) (first, goal *trace.Step) {
	for _, s := range p.on[uid] {
		if s.Phase == "" && !s.Refused && (first == nil || s.CauseUID == "" && s.Subresource != "status") {
			first = s
		}
	}
	if first == nil {
		return nil, nil
	}
	last := first.Time
	var end *trace.Step
	for i := range p.steps {
		s := &p.steps[i]
		if s.Time.Before(first.Began()) {
			continue
		}
		if s.Time.Sub(last) > quiet {
			break
		}
		last, end = s.Time, s
		if s.Phase == trace.PhaseRules || s.Phase == trace.PhaseName || strings.Contains(s.What, "ready") || strings.Contains(s.What, "Running") || strings.Contains(s.What, "Succeeded") {
			goal = s
		}
	}
	if goal == nil {
		goal = end
	}
	return first, goal
}

// began returns when a component began to work on a step: when it woke for it, if that is
// known.
func began(s *trace.Step) time.Time { return s.Time.Add(-time.Duration(max(s.Took, s.Woke))) }

// begin returns when the work on a step began after another one: a component that had woken
// before went on at once.
func begin(s, before *trace.Step) time.Time {
	if at := began(s); !at.Before(before.Time) {
		return at
	}
	if at := s.Began(); !at.Before(before.Time) {
		return before.Time // it was at work all the time
	}
	return s.Began()
}

// before returns the step that another one followed: the last that had ended when that
// began, among those that it can be a consequence of. It is nil for the first.
func (p *path) before(s, first *trace.Step) *trace.Step {
	if s == first {
		return nil
	}
	var best *trace.Step
	limit := s.Began().Add(tolerance)
	served := s.Phase == trace.PhaseRules || s.Phase == trace.PhaseName // these do not wait for one another
	consider := func(all []*trace.Step) {
		for _, o := range all {
			over := !o.Time.After(limit) || s.Phase != "" && o.Began().Before(s.Began()) // a probe begins while its container's start still goes on
			if o == s || !o.Time.Before(s.Time) || !over || served && o.Phase != "" || o.Time.Before(first.Time) || o.Refused {
				continue
			}
			if best == nil || o.Time.After(best.Time) {
				best = o
			}
		}
	}
	uids := []types.UID{s.UID}
	if s.CauseUID != "" && s.CauseUID != s.UID {
		uids = append(uids, s.CauseUID)
	}
	uids = append(uids, s.About...)
	for _, uid := range uids {
		consider(p.on[uid])
		if s.Phase == "" {
			consider(p.below[uid])
		}
	}
	if best == nil && s != first && len(p.on[s.UID]) > 0 {
		return p.made(s, first)
	}
	return best
}

// made returns the write that made the object of a step, or that of the object it was made
// because of.
func (p *path) made(s, first *trace.Step) *trace.Step {
	if o := p.on[s.UID][0]; o != s && o.Time.Before(s.Time) {
		return o
	}
	if up := p.on[p.parent[s.UID]]; len(up) > 0 && up[0].Time.Before(s.Time) {
		return up[0]
	}
	if first.Time.Before(s.Time) {
		return first
	}
	return nil
}

// named says what was waited for between two steps.
func named(before, s *trace.Step) string {
	switch {
	case s.Phase == trace.PhaseSchedule:
		return fmt.Sprintf("until the scheduler saw %s", short(s))
	case s.Phase == trace.PhaseRules:
		return fmt.Sprintf("until the service proxy of %s saw %s", s.Node, short(s))
	case s.Phase == trace.PhaseName:
		return fmt.Sprintf("until the name server of %s saw %s", s.Node, short(s))
	case s.Phase != "" && before.Phase != "":
		return fmt.Sprintf("between %s and %s of %s", before.Phase, s.Phase, short(s))
	case s.Phase != "" && s.Node != "":
		return fmt.Sprintf("until %s of %s began with %s of %s", actor(s), s.Node, s.Phase, short(s))
	case s.Phase != "":
		return fmt.Sprintf("until the %s began with %s of %s", actor(s), s.Phase, short(s))
	case strings.HasPrefix(s.Resource, "endpointslices"):
		return fmt.Sprintf("between %s of %s and its endpoints", what(before), short(before))
	case s.CauseUID == "":
		return fmt.Sprintf("until %s came with %s", actor(s), what(s))
	}
	return fmt.Sprintf("until %s saw %s of %s", actor(s), what(before), short(before))
}

// short names the object of a step as kubectl's users do.
func short(s *trace.Step) string {
	resource, _, _ := strings.Cut(s.Resource, ".")
	return strings.TrimSuffix(resource, "s") + "/" + s.Name
}

// actor names who did a step, without what begins all such names.
func actor(s *trace.Step) string {
	return strings.TrimPrefix(strings.TrimPrefix(s.Actor, "system:serviceaccount:kube-system:"), "system:")
}

// what says in a few words what a step did.
func what(s *trace.Step) string {
	switch {
	case s.Phase != "":
		return s.Phase
	case s.What != "":
		return s.What
	case s.Subresource != "":
		return "the " + s.Subresource
	}
	return s.Verb
}
