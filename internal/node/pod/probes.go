package pod

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/podspec"
	"keelson.dev/keelson/internal/node/prober"
	"keelson.dev/keelson/internal/trace"
)

// probing is the probes of one running container.
type probing struct {
	cancel  context.CancelFunc
	started bool // no startup probe, or it succeeded
	ready   bool // no readiness probe, or it succeeded
}

// probes runs the probes of a pod's containers.
type probes struct {
	*base
	kills *kills
	mu    sync.Mutex
	byID  map[string]*probing // by container ID
}

func newProbes(b *base, k *kills) *probes {
	return &probes{base: b, kills: k, byID: map[string]*probing{}}
}

// keep starts the probes of containers that run and have none yet, and
// ends those of containers that do not run.
func (ps *probes) keep(pod *v1.Pod, obs *observed) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	alive := map[string]bool{}
	for _, st := range obs.running() {
		alive[st.Id] = true
		c := podspec.Container(pod, st.Labels[cri.ContainerNameLabel])
		if c == nil || ps.byID[st.Id] != nil || c.StartupProbe == nil && c.ReadinessProbe == nil && c.LivenessProbe == nil {
			continue
		}
		ctx, cancel := context.WithCancel(ps.ctx)
		p := &probing{cancel: cancel, started: c.StartupProbe == nil, ready: c.ReadinessProbe == nil}
		if !p.ready || !p.started {
			// A restarted agent keeps the readiness in the pod's status, so
			// that its restart does not remove pods from their Services.
			if s := podspec.Status(pod, c.Name); s != nil && s.ContainerID == ps.containerID(st.Id) {
				p.started = p.started || s.Started != nil && *s.Started
				p.ready = p.ready || s.Ready
			}
		}
		ps.byID[st.Id] = p
		ip := ""
		if ips := obs.ips(); len(ips) > 0 {
			ip = ips[0]
		} else if own := ps.NodeIPs(); pod.Spec.HostNetwork && len(own) > 0 {
			ip = own[0].String()
		}
		t := prober.Target{PodIP: ip, Container: c, Exec: func(ctx context.Context, cmd []string, d time.Duration) (string, int32, error) {
			return ps.kills.exec(ctx, st.Id, cmd, d)
		}}
		if p.started {
			ps.run(ctx, pod, c, st, p, t)
		} else {
			sctx, done := context.WithCancel(ctx)
			ps.watch(sctx, pod, c, st, "Startup", c.StartupProbe, t, func(ok bool) {
				if !ok {
					ps.kill(pod, c, st, c.StartupProbe, fmt.Sprintf("Container %s failed startup probe, will be restarted", c.Name))
					done()
					return
				}
				done()
				ps.mu.Lock()
				p.started = true
				ps.run(ctx, pod, c, st, p, t)
				ps.mu.Unlock()
				ps.notify()
			})
		}
	}
	for id, p := range ps.byID {
		if !alive[id] {
			p.cancel()
			delete(ps.byID, id)
		}
	}
}

// stop ends all probes.
func (ps *probes) stop() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for id, p := range ps.byID {
		p.cancel()
		delete(ps.byID, id)
	}
}

// run starts the probes that are for a container that has started.
func (ps *probes) run(ctx context.Context, pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus, p *probing, t prober.Target) {
	if c.ReadinessProbe != nil {
		ps.watch(ctx, pod, c, st, "Readiness", c.ReadinessProbe, t, func(ok bool) {
			ps.mu.Lock()
			changed := p.ready != ok
			p.ready = ok
			ps.mu.Unlock()
			if changed {
				ps.notify()
			}
		})
	}
	if c.LivenessProbe != nil {
		lctx, done := context.WithCancel(ctx)
		ps.watch(lctx, pod, c, st, "Liveness", c.LivenessProbe, t, func(ok bool) {
			if !ok {
				ps.kill(pod, c, st, c.LivenessProbe, fmt.Sprintf("Container %s failed liveness probe, will be restarted", c.Name))
				done()
			}
		})
	}
}

func (ps *probes) watch(ctx context.Context, pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus, kind string, p *v1.Probe, t prober.Target, decided func(ok bool)) {
	ref := containerRef(pod, c.Name)
	// A restarted agent sees a container again whose probes have succeeded.
	s := podspec.Status(pod, c.Name)
	first := s == nil || s.ContainerID != ps.containerID(st.Id) || !s.Ready
	ps.wg.Go(func() {
		prober.Watch(ctx, ps.Clock, p, t, time.Unix(0, st.StartedAt), func(r prober.Result, out string, err error, enough bool, took time.Duration) {
			ps.Metrics.Probe(kind, r.String(), c.Name, pod.Name, pod.Namespace, string(pod.UID), took)
			switch {
			case err != nil:
				ps.Recorder.Event(ref, v1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe errored and resulted in unknown state: %v", kind, err))
			case r == prober.Failure:
				ps.Recorder.Event(ref, v1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", kind, out))
			}
			if enough && r == prober.Success && first {
				first = false
				ps.Trace.Phase("pods", pod, trace.PhaseProbe, fmt.Sprintf("container %s: %s probe succeeds", c.Name, strings.ToLower(kind)), time.Unix(0, st.StartedAt))
			}
			if enough {
				decided(r == prober.Success)
			}
		})
	})
}

func (ps *probes) kill(pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus, p *v1.Probe, message string) {
	grace := podspec.GracePeriod(pod)
	if p.TerminationGracePeriodSeconds != nil {
		grace = *p.TerminationGracePeriodSeconds
	}
	ps.kills.kill(ps.ctx, pod, st, message, grace)
}

// started reports whether the container counts as started.
func (ps *probes) started(c *v1.Container, id string) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.byID[id]; p != nil {
		return p.started
	}
	return c.StartupProbe == nil
}

// ready reports whether the container counts as ready.
func (ps *probes) ready(c *v1.Container, id string) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.byID[id]; p != nil {
		return p.started && p.ready
	}
	return c.ReadinessProbe == nil && c.StartupProbe == nil
}
