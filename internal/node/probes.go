package node

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/prober"
)

// probing is the probes of one running container.
type probing struct {
	cancel  context.CancelFunc
	started bool // no startup probe, or it succeeded
	ready   bool // no readiness probe, or it succeeded
}

// keepProbes starts the probes of containers that run and have none yet, and
// ends those of containers that do not run.
func (w *worker) keepProbes(pod *v1.Pod, obs *observed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	alive := map[string]bool{}
	for _, st := range obs.running() {
		alive[st.Id] = true
		c := specOf(pod, st.Labels[labelContainerName])
		if c == nil || w.probes[st.Id] != nil || c.StartupProbe == nil && c.ReadinessProbe == nil && c.LivenessProbe == nil {
			continue
		}
		ctx, cancel := context.WithCancel(w.a.ctx)
		p := &probing{cancel: cancel, started: c.StartupProbe == nil, ready: c.ReadinessProbe == nil}
		if !p.ready || !p.started {
			// An agent that starts again takes the word of the one before it,
			// so that a restart does not take pods out of their services.
			if s := postedStatus(pod, c.Name); s != nil && s.ContainerID == w.a.containerID(st.Id) {
				p.started = p.started || s.Started != nil && *s.Started
				p.ready = p.ready || s.Ready
			}
		}
		w.probes[st.Id] = p
		ip := ""
		if ips := obs.ips(); len(ips) > 0 {
			ip = ips[0]
		} else if pod.Spec.HostNetwork && len(w.a.NodeIPs) > 0 {
			ip = w.a.NodeIPs[0].String()
		}
		t := prober.Target{PodIP: ip, Container: c, Exec: func(ctx context.Context, cmd []string, d time.Duration) (string, int32, error) {
			return w.exec(ctx, st.Id, cmd, d)
		}}
		if p.started {
			w.probeRunning(ctx, pod, c, st, p, t)
		} else {
			sctx, done := context.WithCancel(ctx)
			w.watchProbe(sctx, pod, c, st, "Startup", c.StartupProbe, t, func(ok bool) {
				if !ok {
					w.probeKill(pod, c, st, c.StartupProbe, fmt.Sprintf("Container %s failed startup probe, will be restarted", c.Name))
					done()
					return
				}
				done()
				w.mu.Lock()
				p.started = true
				w.probeRunning(ctx, pod, c, st, p, t)
				w.mu.Unlock()
				w.notify()
			})
		}
	}
	for id, p := range w.probes {
		if !alive[id] {
			p.cancel()
			delete(w.probes, id)
		}
	}
}

func (w *worker) stopProbes() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, p := range w.probes {
		p.cancel()
		delete(w.probes, id)
	}
}

// probeRunning starts the probes that are for a container that has started.
func (w *worker) probeRunning(ctx context.Context, pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus, p *probing, t prober.Target) {
	if c.ReadinessProbe != nil {
		w.watchProbe(ctx, pod, c, st, "Readiness", c.ReadinessProbe, t, func(ok bool) {
			w.mu.Lock()
			changed := p.ready != ok
			p.ready = ok
			w.mu.Unlock()
			if changed {
				w.notify()
			}
		})
	}
	if c.LivenessProbe != nil {
		lctx, done := context.WithCancel(ctx)
		w.watchProbe(lctx, pod, c, st, "Liveness", c.LivenessProbe, t, func(ok bool) {
			if !ok {
				w.probeKill(pod, c, st, c.LivenessProbe, fmt.Sprintf("Container %s failed liveness probe, will be restarted", c.Name))
				done()
			}
		})
	}
}

func (w *worker) watchProbe(ctx context.Context, pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus, kind string, p *v1.Probe, t prober.Target, decided func(ok bool)) {
	ref := containerRef(pod, c.Name)
	w.a.wg.Go(func() {
		prober.Watch(ctx, w.a.Clock, p, t, time.Unix(0, st.StartedAt), func(r prober.Result, out string, err error, enough bool, took time.Duration) {
			w.a.metrics.Probe(kind, r.String(), c.Name, pod.Name, pod.Namespace, string(pod.UID), took)
			switch {
			case err != nil:
				w.a.Recorder.Event(ref, v1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe errored and resulted in unknown state: %v", kind, err))
			case r == prober.Failure:
				w.a.Recorder.Event(ref, v1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", kind, out))
			}
			if enough {
				decided(r == prober.Success)
			}
		})
	})
}

func (w *worker) probeKill(pod *v1.Pod, c *v1.Container, st *runtimeapi.ContainerStatus, p *v1.Probe, message string) {
	grace := gracePeriod(pod)
	if p.TerminationGracePeriodSeconds != nil {
		grace = *p.TerminationGracePeriodSeconds
	}
	w.kill(w.a.ctx, pod, st, message, grace)
}

// probeStarted reports whether the container counts as started; w.mu is held.
func (w *worker) probeStarted(c *v1.Container, id string) bool {
	if p := w.probes[id]; p != nil {
		return p.started
	}
	return c.StartupProbe == nil
}

// probeReady reports whether the container counts as ready; w.mu is held.
func (w *worker) probeReady(c *v1.Container, id string) bool {
	if p := w.probes[id]; p != nil {
		return p.started && p.ready
	}
	return c.ReadinessProbe == nil && c.StartupProbe == nil
}

func postedStatus(pod *v1.Pod, name string) *v1.ContainerStatus {
	for _, l := range [][]v1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range l {
			if l[i].Name == name {
				return &l[i]
			}
		}
	}
	return nil
}
