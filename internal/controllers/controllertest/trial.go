package controllertest

import (
	"cmp"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
)

// Trial is what becomes of a cluster whose controllers have trouble: requests fail,
// answers are lost, watches lag behind one another, stall and expire, and the
// controllers are killed at any write and made anew.
type Trial struct {
	Controllers []Constructor
	// Context changes the controllers' context, as NewWith's.
	Context func(*controllers.Context)
	// Outside, if set, gives each life of the controllers what else they talk to.
	Outside func(c *Cluster, life Life, context *controllers.Context)
	// World is what there is when the controllers start.
	World []Object
	// Actions are done one after the other, with some time of trouble after each.
	Actions []Action
	// Others does, for each object with some chance, what other components would, and
	// reports whether it changed anything. The namespace "ns" has a kubelet anyhow.
	Others func(c *Cluster, chance func() bool) bool
	// Collected says that one of the controllers follows the propagation policies of
	// deletions.
	Collected bool
	// Beats are the resources that controllers write to all the time, beside Leases.
	Beats []string
	// Always holds at any time, End when all has come to rest in peace.
	Always, End Fact
	// Seeds is how many runs there are, each with other trouble.
	Seeds int
	// Tick is the longest time between two moments at which something happens, half a
	// second where it is 0.
	Tick time.Duration
	// Rest is for how long nothing is written in the end; 10 minutes where it is 0,
	// longer than the backoff after any likely number of failures in a row, and than
	// an expectation is kept.
	Rest time.Duration
}

// Survives runs the trial.
func (trial Trial) Survives(t *testing.T) {
	t.Helper()
	for seed := range trial.Seeds {
		synctest.Test(t, func(t *testing.T) {
			trial.run(t, uint64(seed))
			if t.Failed() {
				t.Fatalf("with seed %d", seed)
			}
		})
		if t.Failed() {
			return
		}
	}
}

func (trial Trial) run(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	c := newCluster(t)
	c.GracefulPods()
	c.server.collected, c.outside = trial.Collected, trial.Outside
	for _, resource := range trial.Beats {
		c.server.beats[resource] = true
	}
	c.Put(trial.World...)
	c.run(trial.Context, trial.Controllers)
	others := func(chance func() bool) bool {
		changed := c.kubelet("ns", chance)
		if trial.Others != nil && trial.Others(c, chance) {
			changed = true
		}
		if trial.Always != nil {
			trial.Always(t, c)
		}
		return changed
	}
	trouble := func(times int) {
		c.trouble.set(rand.New(rand.NewPCG(seed, rng.Uint64())))
		defer c.trouble.set(nil)
		for range times {
			c.Advance(time.Duration(rng.Int64N(int64(cmp.Or(trial.Tick, time.Second/2)))))
			others(func() bool { return rng.IntN(2) == 0 })
			if rng.IntN(5) == 0 {
				c.conn.kill()
			}
			if c.conn.killed() {
				c.Restart()
			}
		}
	}
	trouble(rng.IntN(5))
	for _, act := range trial.Actions {
		act(c)
		trouble(rng.IntN(15))
	}
	if c.conn.killed() {
		c.Restart()
	}
	rest := cmp.Or(trial.Rest, 10*time.Minute)
	for range 2000 {
		c.Advance(time.Second)
		if others(always) {
			continue
		}
		was := c.server.changes()
		c.Advance(rest)
		if quiet := c.server.changes() == was; !others(always) && quiet {
			if trial.End != nil {
				trial.End(t, c)
			}
			return
		}
	}
	t.Error("it never comes to rest")
}

func always() bool { return true }

// breathe lets watches take what has happened: the tracker holds 100 events for each.
func breathe(i int) {
	if i%50 == 49 {
		synctest.Wait()
	}
}

// kubelet takes each pod of a namespace one step on, with some chance: to be ready,
// or away.
func (c *Cluster) kubelet(namespace string, chance func() bool) (changed bool) {
	c.t.Helper()
	for i, p := range c.Pods(namespace) {
		breathe(i)
		if !chance() {
			continue
		}
		switch {
		case p.DeletionTimestamp != nil:
			zero := int64(0)
			if err := c.Client.CoreV1().Pods(namespace).Delete(c.t.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil && !apierrors.IsNotFound(err) {
				c.t.Fatal(err)
			}
			if len(p.Finalizers) > 0 {
				continue // it waits for others
			}
		case p.Status.Phase == "" || p.Status.Phase == v1.PodPending:
			p.Status.Phase = v1.PodRunning
			p.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Now())}}
			if _, err := c.Client.CoreV1().Pods(namespace).UpdateStatus(c.t.Context(), &p, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				c.t.Fatal(err)
			}
		default:
			continue
		}
		changed = true
	}
	return changed
}
