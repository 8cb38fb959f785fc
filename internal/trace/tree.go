package trace

import (
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Print writes the steps of an object as a tree: the writes to it, and below
// each step what other objects were written because of it, with the time since
// the first step.
func Print(w io.Writer, uid types.UID, steps []Step) {
	if len(steps) == 0 {
		fmt.Fprintln(w, "nothing is recorded of it (the record is kept in memory, and begins when the server starts)")
		return
	}
	p := printer{w: w, begin: steps[0].Time, of: map[types.UID][]Step{}, children: map[types.UID][]types.UID{}, seen: map[types.UID]bool{uid: true}}
	for _, s := range steps {
		if len(p.of[s.UID]) == 0 && s.UID != uid {
			p.children[s.CauseUID] = append(p.children[s.CauseUID], s.UID)
		}
		p.of[s.UID] = append(p.of[s.UID], s)
	}
	p.object(uid, 0)
}

type printer struct {
	w        io.Writer
	begin    time.Time
	of       map[types.UID][]Step
	children map[types.UID][]types.UID
	seen     map[types.UID]bool
}

func (p *printer) object(uid types.UID, depth int) {
	steps := p.of[uid]
	if len(steps) == 0 {
		return
	}
	indent := strings.Repeat("  ", depth)
	first := steps[0]
	name := first.Name
	if first.Namespace != "" {
		name = first.Namespace + "/" + name
	}
	fmt.Fprintf(p.w, "%s%s %s\n", indent, first.Resource, name)
	for _, s := range steps {
		verb := s.Verb
		if s.Subresource != "" {
			verb += " " + s.Subresource
		}
		line := fmt.Sprintf("%s  +%-10s %-14s %s", indent, s.Time.Sub(p.begin).Round(100*time.Microsecond), verb, s.Actor)
		if s.What != "" {
			line += "  (" + s.What + ")"
		}
		fmt.Fprintln(p.w, line)
	}
	for _, c := range p.children[uid] {
		if !p.seen[c] {
			p.seen[c] = true
			p.object(c, depth+1)
		}
	}
}
