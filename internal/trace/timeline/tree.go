package timeline

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/trace"
)

// fewest is how many objects of a resource are shown below another one, if not all are.
const fewest = 5

// Printer writes a timeline as text.
type Printer struct {
	W io.Writer
	// All shows every object, else few of many alike.
	All bool
	// Escape, if set, makes text harmless that others wrote.
	Escape func(string) string
}

func (p *Printer) printf(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if p.Escape != nil {
		s = p.Escape(s)
	}
	fmt.Fprintln(p.W, s)
}

// Print writes the steps as a tree: those of the object, and below it the objects that
// were written because of it. Of each step it has when it began after the first one, how
// long it took, and that as a share of the whole; those on the critical path have a star.
func (p *Printer) Print(t *Timeline) {
	if len(t.Steps) == 0 {
		p.printf("nothing is recorded of it (the record is kept in memory, and begins when the server starts)")
		return
	}
	tr := tree{Printer: p, t: t, origin: t.Begin, of: map[types.UID][]*trace.Step{}, children: map[types.UID][]types.UID{}, critical: map[types.UID]bool{}, seen: map[types.UID]bool{}}
	if tr.origin.IsZero() {
		tr.origin = t.Steps[0].Began()
	}
	for i := range t.Steps {
		s := &t.Steps[i]
		uid := s.UID
		if uid == "" && len(s.About) > 0 {
			uid = s.About[0] // a creation that was refused
		}
		if len(tr.of[uid]) == 0 && uid != t.UID {
			tr.children[s.CauseUID] = append(tr.children[s.CauseUID], uid)
		}
		tr.of[uid] = append(tr.of[uid], s)
		tr.critical[uid] = tr.critical[uid] || s.Critical
	}
	p.printf("%9s %9s %5s", "AT", "TOOK", "SHARE")
	tr.object(t.UID, 0)
	for parent, all := range tr.children {
		if _, ok := tr.of[parent]; !ok {
			tr.orphans = append(tr.orphans, all...)
		}
	}
	slices.SortFunc(tr.orphans, func(a, b types.UID) int { return tr.of[a][0].Time.Compare(tr.of[b][0].Time) })
	tr.list(tr.orphans, 1)
	p.summary(t)
	p.missing(t)
}

func (p *Printer) summary(t *Timeline) {
	if t.Total > 0 {
		p.printf("\nfrom %s to the end of the critical path (*): %s", t.Begin.Local().Format("15:04:05.000"), ms(time.Duration(t.Total)))
	}
	for i, l := range t.Lost {
		if i == 0 {
			p.printf("lost on it:")
		}
		p.printf("  %9s %5s  %s", ms(time.Duration(l.Ms)), share(l.Ms, t.Total), l.What)
	}
	for i, w := range t.Waits {
		if i == 0 {
			p.printf("waiting:")
		}
		line := "  " + w.Object + " waits for " + w.For
		if w.Who != "" {
			line += "; who can change it: " + w.Who
		}
		p.printf("%s", line)
	}
}

// missing says which steps are not in the record.
func (p *Printer) missing(t *Timeline) {
	for i, g := range t.Missing {
		if i == 0 {
			p.printf("missing steps, of these objects or of others:")
		}
		p.printf("  %d of %s, from %s to %s: %s", g.Steps, g.Who, g.From.Local().Format("15:04:05.000"), g.To.Local().Format("15:04:05.000"), g.Why)
	}
}

type tree struct {
	*Printer
	t        *Timeline
	origin   time.Time
	of       map[types.UID][]*trace.Step
	children map[types.UID][]types.UID
	critical map[types.UID]bool
	orphans  []types.UID
	seen     map[types.UID]bool
}

func (t *tree) object(uid types.UID, depth int) {
	steps := t.of[uid]
	if len(steps) == 0 || t.seen[uid] {
		return
	}
	t.seen[uid] = true
	indent := strings.Repeat("  ", depth)
	first := steps[0]
	name := first.Name
	if first.Namespace != "" {
		name = first.Namespace + "/" + name
	}
	t.printf("%25s %s%s %s", "", indent, first.Resource, name)
	for _, s := range steps {
		t.step(s, indent)
	}
	t.list(t.children[uid], depth+1)
}

// list shows objects, of many of a resource only the first, and those on the critical path.
func (t *tree) list(all []types.UID, depth int) {
	shown, hidden := map[string]int{}, map[string]int{}
	var order []string
	for _, uid := range all {
		resource := t.of[uid][0].Resource
		if !t.All && shown[resource] >= fewest && !t.leads(uid) {
			if hidden[resource]++; hidden[resource] == 1 {
				order = append(order, resource)
			}
			continue
		}
		shown[resource]++
		t.object(uid, depth)
	}
	for _, resource := range order {
		t.printf("%25s %s%d more %s (--all shows them)", "", strings.Repeat("  ", depth), hidden[resource], resource)
	}
}

// leads reports whether the critical path goes through an object or one below it.
func (t *tree) leads(uid types.UID) bool {
	if t.critical[uid] {
		return true
	}
	return slices.ContainsFunc(t.children[uid], func(c types.UID) bool { return c != uid && t.critical[c] })
}

func (t *tree) step(s *trace.Step, indent string) {
	star := " "
	if s.Critical {
		star = "*"
	}
	t.printf("%9s %9s %5s %s%s%s", ms(s.Began().Sub(t.origin)), ms(time.Duration(s.Took)), share(s.Took, t.t.Total), star, indent, Line(s))
	for i := range s.Parts {
		part := &s.Parts[i]
		line := part.Name
		if part.Detail != "" {
			line += " " + part.Detail
		}
		t.printf("%9s %9s %5s  %s    - %s", ms(s.Began().Add(time.Duration(part.After)).Sub(t.origin)), ms(time.Duration(part.Took)), "", indent, line)
	}
}

// Following says a step in a line by itself, with its time and its object.
func Following(s *trace.Step) string {
	return fmt.Sprintf("%s %9s  %-40s %s", s.Time.Local().Format("15:04:05.000"), ms(time.Duration(s.Took)), short(s), Line(s))
}

// Line says a step in a line.
func Line(s *trace.Step) string {
	var b strings.Builder
	if s.Phase != "" {
		fmt.Fprintf(&b, "%s  %s", s.Phase, actor(s))
		if s.Node != "" {
			b.WriteString(" on " + s.Node)
		}
	} else {
		b.WriteString(s.Verb)
		if s.Subresource != "" {
			b.WriteString(" " + s.Subresource)
		}
		b.WriteString("  " + actor(s))
		if client, _, _ := strings.Cut(s.Client, " "); client != "" {
			b.WriteString(" with " + client)
		}
	}
	if said := strings.TrimPrefix(s.What+"; "+s.Detail, "; "); strings.TrimSuffix(said, "; ") != "" {
		fmt.Fprintf(&b, "  (%s)", strings.TrimSuffix(said, "; "))
	}
	if s.Phase == "" {
		var parts []string
		for _, part := range []struct {
			name string
			took trace.Millis
		}{{"admission", s.Admission}, {"validation", s.Validation}, {"disk", s.Store}} {
			if part.took > 0 {
				parts = append(parts, part.name+" "+ms(time.Duration(part.took)))
			}
		}
		if woke := time.Duration(s.Woke - s.Took); s.Woke > s.Took && woke >= least/10 {
			parts = append([]string{"after " + ms(woke) + " of work"}, parts...)
		}
		if s.ResourceVersion != "" && !s.Refused {
			parts = append(parts, "revision "+s.ResourceVersion)
		}
		if len(parts) > 0 {
			b.WriteString("  [" + strings.Join(parts, ", ") + "]")
		}
	}
	return b.String()
}

// ms writes a duration with three digits that count.
func ms(d time.Duration) string {
	switch a := d.Abs(); {
	case a == 0:
		return "0"
	case a < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case a < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case a < time.Second:
		return d.Round(time.Millisecond).String()
	case a < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func share(part, whole trace.Millis) string {
	if whole <= 0 || part > whole {
		return ""
	}
	return fmt.Sprintf("%.0f%%", 100*float64(part)/float64(whole))
}
