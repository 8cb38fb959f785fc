package conformance

import (
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// web returns the handler of a probe that requests a path from the demo server.
func web(path string) v1.ProbeHandler {
	return v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Port: intstr.FromInt32(8080)}}
}

func rpc(port int32) v1.ProbeHandler { return v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: port}} }

func tcp(port int32) v1.ProbeHandler {
	return v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(port)}}
}

func command(args ...string) v1.ProbeHandler {
	return v1.ProbeHandler{Exec: &v1.ExecAction{Command: args}}
}

// alive adds a liveness probe with a period of a second to the first container.
func alive(h v1.ProbeHandler) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.RestartPolicy = v1.RestartPolicyAlways
		p.Spec.Containers[0].LivenessProbe = &v1.Probe{ProbeHandler: h, PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 5}
	}
}

func demoImage(p *v1.Pod) {
	p.Spec.Containers[0].Image, p.Spec.Containers[0].Command = "keelson.local/demo", nil
}

// restarts waits until the container has been restarted that many times.
func (t *T) restarts(name string, times int32) {
	t.Helper()
	last := int32(0)
	t.pod(name, func(p *v1.Pod) error {
		if len(p.Status.ContainerStatuses) == 0 {
			return fmt.Errorf("no status yet")
		}
		now := p.Status.ContainerStatuses[0].RestartCount
		if now < last {
			t.Fatalf("%d restarts after %d", now, last)
		}
		if last = now; now < times {
			return fmt.Errorf("%d restarts", now)
		}
		return nil
	})
}

// steady watches a running pod for some runs of its probes, and checks that it is
// not restarted.
func (t *T) steady(p *v1.Pod) {
	t.Helper()
	t.makePod(p)
	p = t.inPhase(p.Name, v1.PodRunning)
	begun := p.Status.ContainerStatuses[0].State.Running.StartedAt.Time
	t.pod(p.Name, func(p *v1.Pod) error {
		if n := p.Status.ContainerStatuses[0].RestartCount; n > 0 {
			t.Fatalf("%d restarts: %+v", n, p.Status.ContainerStatuses[0])
		}
		if ran := time.Since(begun); ran < 4*time.Second {
			return fmt.Errorf("it has run for %v", ran)
		}
		return nil
	})
}

// health is a script that removes its file /tmp/health after a while.
const health = "echo ok > /tmp/health; sleep 2; rm /tmp/health; sleep 1000"

var (
	_ = InContainers(`[sig-node] Probing container should be restarted with a exec "cat /tmp/health" liveness probe`, func(t *T) {
		t.makePod(t.script("p", health, alive(command("cat", "/tmp/health"))))
		t.restarts("p", 1)
	})
	_ = InContainers(`[sig-node] Probing container should *not* be restarted with a exec "cat /tmp/health" liveness probe`, func(t *T) {
		t.steady(t.script("p", "echo ok > /tmp/health; sleep 1000", alive(command("cat", "/tmp/health")), first(func(c *v1.Container) { c.LivenessProbe.InitialDelaySeconds = 1 })))
	})
	_ = InContainers("[sig-node] Probing container should be restarted with a /healthz http liveness probe", func(t *T) {
		t.makePod(t.script("p", "mkdir /tmp/www; echo ok > /tmp/www/healthz; httpd -p 8080 -h /tmp/www; sleep 2; rm /tmp/www/healthz; sleep 1000", alive(web("/healthz")),
			first(func(c *v1.Container) { c.LivenessProbe.InitialDelaySeconds = 1 })))
		t.restarts("p", 1)
	})
	_ = InContainers("[sig-node] Probing container should *not* be restarted with a /healthz http liveness probe", func(t *T) {
		t.steady(t.script("p", "", demoImage, alive(web("/healthz")), first(func(c *v1.Container) { c.LivenessProbe.FailureThreshold = 5 })))
	})
	_ = InContainers("[sig-node] Probing container should *not* be restarted with a tcp:8080 liveness probe", func(t *T) {
		t.steady(t.script("p", "", demoImage, alive(tcp(8080)), first(func(c *v1.Container) { c.LivenessProbe.FailureThreshold = 5 })))
	})
	_ = InContainers("[sig-node] Probing container should *not* be restarted with a GRPC liveness probe", func(t *T) {
		t.steady(t.script("p", "", demoImage, alive(rpc(8080)), first(func(c *v1.Container) { c.LivenessProbe.FailureThreshold = 5 })))
	})
	_ = InContainers("[sig-node] Probing container should be restarted with a GRPC liveness probe", func(t *T) {
		t.makePod(t.script("p", "", demoImage, alive(rpc(2333))))
		t.restarts("p", 1)
	})
	_ = InContainers("[sig-node] Probing container should have monotonically increasing restart count", func(t *T) {
		// Each run lasts no longer than the backoff before the next would be.
		t.makePod(t.script("p", "sleep 1000", alive(web("/healthz"))))
		t.restarts("p", 3)
	})
)

var _ = InContainers("[sig-node] Probing container with readiness probe should not be ready before initial delay and never restart", func(t *T) {
	const delay = 4
	t.makePod(t.script("p", "", demoImage, first(func(c *v1.Container) {
		c.ReadinessProbe = &v1.Probe{ProbeHandler: web("/"), InitialDelaySeconds: delay, PeriodSeconds: 1}
	})))
	p := t.pod("p", func(p *v1.Pod) error {
		if !isReady(p) {
			return fmt.Errorf("%+v", p.Status)
		}
		return nil
	})
	i := slices.IndexFunc(p.Status.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.PodReady })
	s := p.Status.ContainerStatuses[0]
	if after := p.Status.Conditions[i].LastTransitionTime.Sub(s.State.Running.StartedAt.Time); after < (delay-1)*time.Second || s.RestartCount != 0 { // times in the API are whole seconds
		t.Errorf("ready after %v, with %d restarts", after, s.RestartCount)
	}
})

var _ = InContainers("[sig-node] Probing container with readiness probe that fails should never be ready and never restart", func(t *T) {
	p := t.script("p", "", demoImage, first(func(c *v1.Container) {
		c.ReadinessProbe = &v1.Probe{ProbeHandler: command("/bin/demo", "fail"), PeriodSeconds: 1}
	}))
	t.steady(p)
	if p := t.inPhase("p", v1.PodRunning); isReady(p) || p.Status.ContainerStatuses[0].Ready {
		t.Errorf("%+v", p.Status)
	}
})
