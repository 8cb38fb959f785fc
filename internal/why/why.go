// Package why says in a few sentences why an object is as it is: from the object, its
// events, and what the history of the store knows of the writes to it and to others. It
// may import packages apiserver/history and trace.
package why

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/apiserver/history"
	"keelson.dev/keelson/internal/trace"
	"keelson.dev/keelson/internal/trace/timeline"
)

// Facts are what is known.
type Facts struct {
	// Object is the object as it is, or as it was last.
	Object *unstructured.Unstructured
	// Gone reports whether it does not exist any more.
	Gone bool
	// Changes are the writes that are remembered, of this object and of others.
	Changes []*history.Object
	// Events are those about the object.
	Events []v1.Event
	// Way is the trace of the object, nil if there is none.
	Way *timeline.Timeline
	Now time.Time
}

// Explain returns the sentences.
func Explain(f Facts) []string {
	e := explainer{Facts: f, byUID: map[types.UID]*history.Object{}}
	for _, o := range f.Changes {
		if o.UID != "" {
			e.byUID[o.UID] = o
		}
	}
	slices.SortStableFunc(e.Events, func(a, b v1.Event) int { return when(&a).Compare(when(&b)) })
	e.origin()
	e.owners()
	if e.Object.GetKind() == "Pod" && e.Object.GroupVersionKind().Group == "" {
		var p v1.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(e.Object.Object, &p); err == nil {
			e.pod(&p)
		}
	} else {
		e.conditions()
	}
	e.end()
	e.waits()
	e.warnings()
	return e.out
}

type explainer struct {
	Facts
	byUID map[types.UID]*history.Object
	out   []string
}

func (e *explainer) say(format string, args ...any) {
	e.out = append(e.out, fmt.Sprintf(format, args...))
}

// is returns the tense in which is said how the object is.
func (e *explainer) is() string {
	if e.Gone {
		return "was"
	}
	return "is"
}

// ago says how long before now t is.
func (e *explainer) ago(t time.Time) string {
	return duration.HumanDuration(e.Now.Sub(t)) + " ago"
}

// named returns an object's name as kubectl's users write it.
func named(o *history.Object) string { return strings.TrimSuffix(o.Resource, "s") + "/" + o.Name }

func (e *explainer) name() string {
	return strings.ToLower(e.Object.GetKind()) + "/" + e.Object.GetName()
}

// origin says who made the object.
func (e *explainer) origin() {
	own := e.byUID[e.Object.GetUID()]
	if own != nil {
		for i := range own.Changes {
			if c := &own.Changes[i]; c.Verb == "created" {
				e.say("%s was created %s %s.", e.name(), e.ago(c.Time), e.by(own, c))
				return
			}
		}
	}
	if at := e.Object.GetCreationTimestamp(); !at.IsZero() {
		e.say("%s was created %s; the history does not reach back to who did it.", e.name(), e.ago(at.Time))
	}
}

// by says by whom a change of o was made, and because of which changes before it.
func (e *explainer) by(o *history.Object, c *history.Change) string {
	s := "by " + actor(c)
	seen := map[types.UID]bool{o.UID: true}
	for range 8 {
		cause, err := trace.ParseCause(c.Cause)
		if err != nil || seen[cause.UID] {
			break
		}
		seen[cause.UID] = true
		next := e.byUID[cause.UID]
		if next == nil {
			break
		}
		c = change(next, cause.ResourceVersion)
		if c == nil {
			s += ", because of " + named(next)
			break
		}
		s += fmt.Sprintf(", because of %s, which was %s by %s", named(next), verb(c), actor(c))
	}
	return s
}

// change returns the last change of an object up to a version that says what is wanted of
// it: reports of what is come after that.
func change(o *history.Object, version string) *history.Change {
	last, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return nil
	}
	var found *history.Change
	for i := range o.Changes {
		c := &o.Changes[i]
		if c.Revision > last {
			break
		}
		if c.Subresource != "status" {
			found = c
		}
	}
	return found
}

// verb says what a change did.
func verb(c *history.Change) string {
	switch c.Subresource {
	case "scale":
		return "scaled"
	case "eviction":
		return "evicted"
	}
	return c.Verb
}

// actor says by whom a change was made, and with what.
func actor(c *history.Change) string {
	user := strings.TrimPrefix(c.User, "system:serviceaccount:kube-system:")
	switch {
	case user == "":
		return "the API server"
	case user != c.User || strings.HasPrefix(user, "system:"):
		return strings.TrimPrefix(user, "system:")
	}
	if client, _, _ := strings.Cut(c.Client, "/"); client != "" {
		return user + " with " + client
	}
	return user
}

// owners says what wants the object to exist.
func (e *explainer) owners() {
	if o := metav1.GetControllerOf(e.Object); o != nil && !e.Gone {
		e.say("%s/%s controls it, and makes another in its place if it goes.", strings.ToLower(o.Kind), o.Name)
	}
}

// conditions says which conditions are not as they should be.
func (e *explainer) conditions() {
	all, _, _ := unstructured.NestedSlice(e.Object.Object, "status", "conditions")
	for _, c := range all {
		m, _ := c.(map[string]any)
		status, _ := m["status"].(string)
		kind, _ := m["type"].(string)
		message, _ := m["message"].(string)
		reason, _ := m["reason"].(string)
		good := "True"
		for _, bad := range []string{"Pressure", "Failure", "Failed", "Unavailable", "Stalled", "Deletion", "Progressing:"} {
			if strings.Contains(kind, bad) {
				good = "False"
			}
		}
		if status != "" && status != good {
			e.say("%s is %s: %s", kind, status, strings.TrimPrefix(strings.Join([]string{reason, message}, ": "), ": "))
		}
	}
}

// pod says where a pod runs and why, and why it is not Ready.
func (e *explainer) pod(p *v1.Pod) {
	scheduled := podspec.Condition(p, v1.PodScheduled)
	switch {
	case p.Spec.NodeName != "":
		s := "It " + e.is() + " on " + p.Spec.NodeName
		if own := e.byUID[p.UID]; own != nil {
			for i := range own.Changes {
				if c := &own.Changes[i]; c.Subresource == "binding" {
					s += fmt.Sprintf(": %s put it there %s", actor(c), e.ago(c.Time))
				}
			}
		}
		e.say("%s.", s)
		e.choice(p.UID)
	case scheduled != nil && scheduled.Status == v1.ConditionFalse:
		e.say("It has no node: %s: %s", scheduled.Reason, scheduled.Message)
	}
	for _, all := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range all {
			e.container(&all[i])
		}
	}
	ready := podspec.Condition(p, v1.PodReady)
	switch {
	case p.Status.Phase == v1.PodSucceeded:
		e.say("It has succeeded.")
	case p.Status.Phase == v1.PodFailed:
		e.say("It has failed: %s", cmp.Or(strings.TrimPrefix(p.Status.Reason+": "+p.Status.Message, ": "), "its containers ended with errors"))
	case e.Gone:
	case ready != nil && ready.Status == v1.ConditionTrue:
		e.say("It is Ready, since %s.", duration.HumanDuration(e.Now.Sub(ready.LastTransitionTime.Time)))
	case ready != nil:
		e.say("It is not Ready: %s: %s", ready.Reason, ready.Message)
	}
	for _, g := range p.Spec.ReadinessGates {
		if c := podspec.Condition(p, g.ConditionType); !e.Gone && (c == nil || c.Status != v1.ConditionTrue) {
			e.say("Its readiness gate %s is not True: some controller has to set it.", g.ConditionType)
		}
	}
}

// container says what holds a container up, and why it restarted.
func (e *explainer) container(c *v1.ContainerStatus) {
	if w := c.State.Waiting; w != nil && w.Reason != "" {
		e.say("Container %s waits: %s", c.Name, strings.TrimSuffix(w.Reason+": "+w.Message, ": "))
	}
	if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
		e.say("Container %s ended with %s.", c.Name, ended(t))
	}
	if t := c.LastTerminationState.Terminated; t != nil && c.RestartCount > 0 {
		e.say("Container %s has restarted %d times, last because it ended with %s %s.", c.Name, c.RestartCount, ended(t), e.ago(t.FinishedAt.Time))
	}
}

func ended(t *v1.ContainerStateTerminated) string {
	s := fmt.Sprintf("exit code %d", t.ExitCode)
	switch t.Reason {
	case "", "Error", "Completed":
	default:
		s += " (" + t.Reason + ")"
	}
	return s
}

// end says who deleted the object, and what it waits for.
func (e *explainer) end() {
	own := e.byUID[e.Object.GetUID()]
	if own != nil && (e.Gone || e.Object.GetDeletionTimestamp() != nil) {
		for i := range own.Changes {
			c := &own.Changes[i]
			if c.Ends {
				e.say("It was deleted %s %s.", e.ago(c.Time), e.by(own, c))
				break
			}
		}
	}
	switch f := e.Object.GetFinalizers(); {
	case e.Gone:
		e.say("It does not exist any more.")
	case e.Object.GetDeletionTimestamp() != nil && len(f) > 0:
		e.say("It is being deleted, and waits for what removes its finalizers: %s.", strings.Join(f, ", "))
	case e.Object.GetDeletionTimestamp() != nil:
		e.say("It is being deleted.")
	}
}

// choice says why the scheduler chose the pod's node, as far as the trace has it.
func (e *explainer) choice(uid types.UID) {
	if e.Way == nil {
		return
	}
	for _, s := range slices.Backward(e.Way.Steps) {
		if s.UID != uid || s.Phase != trace.PhaseSchedule {
			continue
		}
		queued := time.Duration(0)
		for _, part := range s.Parts {
			if strings.HasPrefix(part.Name, "waiting") {
				queued = time.Duration(part.Took)
			}
		}
		e.say("The scheduler found: %s (after %s in its queue).", s.Detail, queued.Round(time.Millisecond))
		return
	}
}

// waits says what the object waits for, and who can change that, where nothing before has.
func (e *explainer) waits() {
	if e.Way == nil || e.Gone {
		return
	}
	for _, w := range e.Way.Waits {
		if w.Object == e.name() && w.Who != "" {
			e.say("It waits for %s: it is for %s.", w.For, w.Who)
		}
	}
}

// mostWarnings is how many warnings are told.
const mostWarnings = 3

// warnings says what the last warnings about the object were.
func (e *explainer) warnings() {
	var lines []string
	for i := range e.Events {
		ev := &e.Events[i]
		if ev.Type == v1.EventTypeWarning {
			lines = append(lines, fmt.Sprintf("Warning %s: %s: %s", e.ago(when(ev)), ev.Reason, ev.Message))
		}
	}
	e.out = append(e.out, lines[max(0, len(lines)-mostWarnings):]...)
}

func when(ev *v1.Event) time.Time {
	for _, t := range []time.Time{ev.LastTimestamp.Time, ev.EventTime.Time} {
		if !t.IsZero() {
			return t
		}
	}
	return ev.CreationTimestamp.Time
}
