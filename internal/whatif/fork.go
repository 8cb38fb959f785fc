package whatif

import (
	"context"
	"errors"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"

	"keelson.dev/keelson/internal/apiserver/admission"
	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/store/embedded"
)

// Fork is a copy of a cluster that can be changed.
type Fork struct {
	// Config is an administrator's configuration for it.
	Config *rest.Config
	Client kubernetes.Interface

	content *embedded.Content // what it began with
	cluster *cluster.Cluster
	clock   *clocktesting.FakeClock
	store   *embedded.Store
}

// New makes a fork of the objects of a cluster. Stop ends it.
func New(ctx context.Context, content *embedded.Content) (_ *Fork, err error) {
	f := &Fork{content: content, clock: clocktesting.NewFakeClock(time.Now())}
	o := cluster.Options{AdoptNodes: true, Options: controlplane.Options{From: content, Clock: f.clock, NoDrain: true,
		Admission: admission.Selection{Disable: []string{"MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"}}}}
	c, err := cluster.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	f.cluster, f.store = c, c.Store.(*embedded.Store)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Stop())
		}
	}()
	f.Config = c.Config(inprocess.Admin)
	f.Client = kubernetes.NewForConfigOrDie(f.Config)
	// What goes on in the cluster by itself is no consequence of a change.
	if _, err := f.Settle(ctx, time.Minute); err != nil {
		return nil, err
	}
	if f.content, err = f.store.Content(ctx, 0); err != nil {
		return nil, err
	}
	return f, nil
}

// Stop ends the fork.
func (f *Fork) Stop() error { return f.cluster.Stop() }

const (
	// still is how long nothing may be written before time is let pass.
	still = 15 * time.Millisecond
	poll  = 3 * time.Millisecond
)

// steps are how far the clock goes on when nothing moves: first by what retries wait,
// then by what controllers and rollouts do. After a write they begin anew.
var steps = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, time.Second, 3 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second}

// Settle lets time pass until nothing has moved for as long as quiet, which is virtual
// time, and an hour at most. It returns how long it took until the last thing moved.
func (f *Fork) Settle(ctx context.Context, quiet time.Duration) (time.Duration, error) {
	const most = time.Hour
	begin := f.clock.Now()
	last := begin // when something moved
	seen := f.store.Revision()
	for step := 0; f.clock.Since(last) < quiet && f.clock.Since(begin) < most; step++ {
		moved, rev, err := f.rest(ctx, seen)
		if err != nil {
			return 0, err
		}
		seen = rev
		if moved {
			last, step = f.clock.Now(), 0
		}
		f.clock.Step(steps[min(step, len(steps)-1)])
	}
	return last.Sub(begin), nil
}

// rest waits until nothing is written any more, and reports whether something was since
// a revision that says more than that a node or a component is alive.
func (f *Fork) rest(ctx context.Context, since int64) (moved bool, revision int64, err error) {
	revision = f.store.Revision()
	for quiet := time.Duration(0); quiet < still; quiet += poll {
		select {
		case <-ctx.Done():
			return false, 0, ctx.Err()
		case <-time.After(poll):
		}
		if now := f.store.Revision(); now != revision {
			revision, quiet = now, 0
		}
	}
	err = f.store.Changes(ctx, "/registry/", since, revision, func(c *store.Change) bool {
		moved = !signOfLife(c.Key)
		return !moved
	})
	return moved, revision, err
}

// signOfLife reports whether what is stored at key says that a component is alive, or
// what it did.
func signOfLife(key string) bool {
	for _, prefix := range []string{"/registry/leases/", "/registry/events/", "/registry/masterleases/"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// Drain cordons a node and evicts its pods, as kubectl drain --ignore-daemonsets
// --delete-emptydir-data --force does, for as long as budgets allow one more. It returns
// the pods that stay, with the reason.
func (f *Fork) Drain(ctx context.Context, node string) (stay map[string]string, err error) {
	if err := f.cordon(ctx, node); err != nil {
		return nil, err
	}
	for {
		evicted := 0
		stay = map[string]string{}
		pods, err := f.podsOn(ctx, node)
		if err != nil {
			return nil, err
		}
		for i := range pods {
			switch refused, err := f.evict(ctx, &pods[i]); {
			case err != nil:
				return nil, err
			case refused != "":
				stay[pods[i].Namespace+"/"+pods[i].Name] = refused
			default:
				evicted++
			}
		}
		if evicted == 0 {
			return stay, nil
		}
		if _, err := f.Settle(ctx, 30*time.Second); err != nil {
			return nil, err
		}
	}
}

// leftByDrain reports whether kubectl drain would leave a pod where it is.
func leftByDrain(p *v1.Pod) bool {
	for _, o := range p.OwnerReferences {
		if o.Controller != nil && *o.Controller && o.Kind == "DaemonSet" {
			return true
		}
	}
	return p.Annotations[v1.MirrorPodAnnotationKey] != "" || p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed || p.DeletionTimestamp != nil
}
