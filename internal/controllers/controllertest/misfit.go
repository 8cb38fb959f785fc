package controllertest

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
)

// Misfit is a cluster with an object in it that its controllers can do nothing with, for
// some hours, and other objects, which they are to go on with.
type Misfit struct {
	Controllers []Constructor
	// Context changes the controllers' context, as NewWith's.
	Context func(*controllers.Context)
	// World is what there is when the controllers start.
	World []Object
	// Refuse, if set, is asked before each write of the controllers; its error is the
	// answer.
	Refuse func(clienttesting.Action) error
	// Collected is as Trial's.
	Collected bool
	// Begin is done after the start.
	Begin Action
	// Others is as Trial's.
	Others func(c *Cluster, chance func() bool) bool
	// Event is how an event begins that tells its user of the fault, "" for none.
	Event string
	// Told checks what the objects say of the fault.
	Told Fact
	// Reads and Writes are how many requests the controllers may do in an hour, once the
	// fault has been there for one; 10 where they are 0, as with the longest backoff.
	Reads, Writes int
	// Later is what somebody does to another object after that, and Fine checks that the
	// controllers have done their part within a while, a minute where that is 0.
	Later  Action
	Within time.Duration
	Fine   Fact
}

// Bounded checks that the controllers do not spin, tell of the fault and go on.
func (m Misfit) Bounded(t *testing.T) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.GracefulPods()
		c.server.collected = m.Collected
		c.refuse = m.Refuse
		c.Put(m.World...)
		c.run(m.Context, m.Controllers)
		if m.Begin != nil {
			m.Begin(c)
		}
		others := func(d time.Duration) {
			for left := d; left > 0; {
				step := 10 * time.Second
				if d-left > 5*time.Minute {
					step = time.Minute
				}
				c.Advance(min(step, left))
				left -= step
				c.kubelet("ns", always)
				if m.Others != nil {
					m.Others(c, always)
				}
			}
		}
		others(time.Hour)
		events := c.Events()
		if m.Event != "" && !slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, m.Event) }) {
			t.Errorf("no event %q among %q", m.Event, firstOf(events, 20))
		}
		if m.Told != nil {
			m.Told(t, c)
		}
		reads, writes := c.count.get()
		others(time.Hour)
		r, w := c.count.get()
		if most := cmp.Or(m.Reads, 10); r-reads > most {
			t.Errorf("%d requests that read in an hour, want %d at most", r-reads, most)
		}
		if most := cmp.Or(m.Writes, 10); w-writes > most {
			t.Errorf("%d requests that write in an hour, want %d at most", w-writes, most)
		}
		if m.Later != nil {
			m.Later(c)
			others(cmp.Or(m.Within, time.Minute))
		}
		if m.Fine != nil {
			m.Fine(t, c)
		}
	})
}

func firstOf(all []string, n int) []string { return all[:min(n, len(all))] }

// Refuses refuses to create the objects of a resource that are labelled bad, or whose name
// begins with bad.
func Refuses(resource string, because error) func(clienttesting.Action) error {
	return func(a clienttesting.Action) error {
		create, ok := a.(clienttesting.CreateAction)
		if !ok || a.GetVerb() != "create" || a.GetResource().Resource != resource || a.GetSubresource() != "" {
			return nil
		}
		o, err := meta.Accessor(create.GetObject())
		if err == nil && (o.GetLabels()["app"] == "bad" || strings.HasPrefix(o.GetName()+o.GetGenerateName(), "bad")) {
			return because
		}
		return nil
	}
}

// Refusals are the errors by which an API server refuses an object of a kind, by what is
// wrong.
func Refusals(kind schema.GroupKind, resource string) map[string]error {
	gr := schema.GroupResource{Group: kind.Group, Resource: resource}
	return map[string]error{
		"invalid template":             apierrors.NewInvalid(kind, "bad", field.ErrorList{field.Required(field.NewPath("spec", "containers"), "")}),
		"missing account":              apierrors.NewForbidden(gr, "bad", errors.New("error looking up service account ns/robot: serviceaccount \"robot\" not found")),
		"exhausted quota":              apierrors.NewForbidden(gr, "bad", errors.New("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1")),
		"rejecting webhook":            apierrors.NewForbidden(gr, "bad", errors.New("admission webhook \"no.example.com\" denied the request: no")),
		"webhook that does not answer": apierrors.NewInternalError(errors.New("failed calling webhook \"no.example.com\": context deadline exceeded")),
	}
}

// JumpingClock is a clock that can be set. Timers go on as they were, as those of a
// machine do whose clock is set.
type JumpingClock struct {
	clock.RealClock
	mu  sync.Mutex
	off time.Duration
}

// Now implements clock.PassiveClock.
func (j *JumpingClock) Now() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.RealClock.Now().Add(j.off)
}

// Since implements clock.PassiveClock.
func (j *JumpingClock) Since(t time.Time) time.Duration { return j.Now().Sub(t) }

// Jump sets the clock by d, forwards or back.
func (j *JumpingClock) Jump(d time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.off += d
}
